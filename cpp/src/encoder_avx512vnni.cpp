#include "encoder_vnni.hpp"

namespace raxe_fast::detail {

constinit const EncoderKernels kEncoderAvx512Vnni =
    make_kernels<Vnni>("avx512vnni", Packing::panels);

}  // namespace raxe_fast::detail
