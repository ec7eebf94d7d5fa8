"""Common English words, to tell whether a text, or what a transform makes of it, is English."""

from __future__ import annotations

__all__ = ["COMMON_WORDS"]

_WORDS = """
    buy sell pay eat stop steal stolen goods drugs gun guns children house water food body child a
    i an as at am be by do go he if in is it me my no of on or so to up us we all and any are ask
    bad but can day did end far few for get got had has her him his how its job key law let lot
    man may men new not now off old one our out own per put run said saw say see set she sir six
    ten the too top try two use via war was way who why win yes yet you your able also area away
    back been best both call came case city come data date does done down each else even ever fact
    file find form from full game gave give goes good hand hard have head hear help here high hold
    home hope idea into just keep kind know last late less life like line list long look made mail
    main make many mean more most much must name need next nice once only open over page part past
    plan play read real rest rule same says seen send show side sign some soon step such sure take
    talk tell test text than that them then they this time told took true turn type upon user very
    view wait walk want week well went were what when will wish with word work year bomb code hack
    hate kill bank card fake drug about above after again allow among answer asked based become
    before began being below between black block board break bring build called cannot carry cause
    change check clear close could country course create early every example false family feel
    first follow following found friend friends general given going great group happen happened
    having human important include including inside instead issue large later learn least leave
    letter level light little living local makes making market maybe means might model money month
    morning mother never night nothing number often order other others paper people perhaps person
    phone place please point possible power problem program public question questions quite really
    reason right room rules school second seems service several shall should since small someone
    something special start started state still story street study system their there these thing
    things think third those thought three through today together toward training under understand
    until using usually where whether which while white whole whose within without woman women
    words working world would write writing written wrong years young yourself access account act
    admin against always assistant attack attacks begin bypass command commands company complete
    computer continue conversation crime dangerous decode delete describe design detailed details
    developer disregard document email explain files forget generate girl guide guidelines hidden
    ignore illegal information input instruction instructions language message messages method
    methods mode network output outline password passwords personal policy pretend previous print
    prior process prompt prompts provide refuse release repeat reply request respond response
    restrictions reveal safety script search secret secrets secure security server share software
    steps tools translate unlock unrestricted users virus weapon website sentence
"""

COMMON_WORDS: frozenset[str] = frozenset(_WORDS.split())
