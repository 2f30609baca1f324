"""Filipino inflection and syllables: well-known words written out by hand, and laws that hold for any word."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.benchmarks.inflection import inflect, parse_affix, spelled, surface_notation
from evaluation.benchmarks.lexicon import Word, filipino
from evaluation.benchmarks.syllables import VOWELS, letters, reduplicant, syllables

# root with the mark of a glottal stop, affix, form: by rule
RULED = """
sulat -um- sumulat | sulat -in- sinulat | sulat -in sulatin | sulat -an sulatan | sulat i- isulat | sulat mag- magsulat
sulat -um-R sumusulat | sulat R susulat | sulat mag-R magsusulat | sulat -in-R sinusulat | sulat pang- panulat | sulat mang-R manunulat
sulat -in-+-an sinulatan | basa -um- bumasa | basa -in- binasa | basa -in basahin | basa mag- magbasa | basa -in-R binabasa
bili -um- bumili | bili -in- binili | bili pang- pambili | bili -um-R bumibili | bili maka- makabili
kain -um- kumain | kain -in- kinain | kain -in kainin | kain -um-R kumakain | kain R kakain | kain -an kainan
luto' -in- niluto | luto' -in lutuin | luto' mag- magluto | luto' mag-R magluluto | luto' -in-R niluluto | luto' makapag- makapagluto
takbo -um- tumakbo | takbo -in takbuhin | takbo -an takbuhan | takbo -um-R tumatakbo | takbo mang-R mananakbo
gawa' -um- gumawa | gawa' -in- ginawa | gawa' mang-R manggagawa | gawa' -in-R ginagawa
laro' mag- maglaro | laro' -in laruin | laro' -an laruan | laro' mag-R maglalaro
aral mag- mag-aral | aral nag-R nag-aaral | aral pag-+-an pag-aralan | aral -in aralin | aral mang- mangaral
alis -um- umalis | alis -um-R umaalis | alis -in alisin | inom -um- uminom | inom -in inumin | inom -in- ininom | inom -um-R umiinom
akyat -um- umakyat | akyat R aakyat | ibig -um- umibig | ibig pag- pag-ibig | upo' -um- umupo | upo' -an upuan
tulong -an tulungan | tulong -um- tumulong | tulong ka- katulong | tulong -in-+-an tinulungan
takot mang- manakot | takot ma- matakot | takot -in takutin | takot mang-R mananakot
palo' mang- mamalo | palo' pang- pamalo | palo' -in paluin | palo' nang- namalo
kuha mang- manguha | kuha pang- panguha | kuha -um- kumuha | kagat mang- mangagat
tahi' mang- manahi | tahi' mang-R mananahi | suntok mang- manuntok | tanim pang- pananim
laba pang- panlaba | dilig pang- pandilig | hugas pang- panghugas | hiram mang- manghiram | gulo mang- manggulo | gamot pang- panggamot
isda' mang- mangisda | isda' mang-R mangingisda | bato mang- mambato | araw pang- pang-araw | walis pang- pangwalis
laki sing- sinlaki | bilis sing- simbilis | ganda kasing- kasingganda | init kasing- kasing-init | taas kasing- kasintaas
ganda ka-+-an kagandahan | buti ka-+-an kabutihan | puti' ka-+-an kaputian | lungkot ka-+-an kalungkutan | gulo ka-+-an kaguluhan
lakad -in lakarin | bayad -an bayaran | tuwid ka-+-an katuwiran | tamad ka-+-an katamaran | lapad ka-+-an kalaparan
sunog -in sunugin | limot -in limutin | tanong ka-+-an katanungan | tapos -in tapusin | hulog -an hulugan
yakap -in- niyakap | linis -in- nilinis | linis ma- malinis | tanda' ma-+-an matandaan | trabaho mag-R magtatrabaho
ngiti' -um- ngumiti | ngiti' -um-R ngumingiti | ngiti' -an ngitian
"""
# root as it is written, affix as it is named, form: listed with the root
LISTED = """
dala -in dalhin | bili -in bilhin | sunod -in sundin | sunod -an sundan | bukas -an buksan | takip -an takpan | bigay -an bigyan
tikim -an tikman | sara -an sarhan | kuha -in kunin | gawa -in gawin | dating -an datnan | tingin -an tingnan | sakit -an saktan
tawa -an tawanan | alam ma-+-an malaman | dunong ma- marunong | dunong ka-+-an karunungan | patay ka-+-an kamatayan | talo -in talunin
simula -an simulan | bili mang- mamili | bigay mang- mamigay | dinig ma- marinig | lagay -an lagyan
dami ma- marami | dangal ma- marangal | dapat ka-+-an karapatan | wala ka-+-an kawalan
"""
SYLLABLES = [
    *["ba-hay", "tak-bo", "ka-in", "ka-a-way", "ngi-ti", "pang-ga-mot", "mang-ga", "bu-wan", "ku-wen-to", "a-so", "da-an"],
    *[
        "i-i-yak",
        "sob-re",
        "eks-per-to",
        "sen-tral",
        "a-sam-ble-a",
        "kon-tra",
        "eks-plo-ra-dor",
        "al-man-dre",
        "tim-pla-da",
        "ngu-mi-ngi-ti",
    ],
]
written = st.text(string.ascii_lowercase.replace("q", ""), min_size=1, max_size=14)


def cases(table: str) -> list[tuple[str, str, str]]:
    return [tuple(case.split()) for line in table.strip().splitlines() for case in line.split("|")]  # type: ignore[misc]


@pytest.mark.parametrize(("root", "affix", "form"), cases(RULED))
def test_the_rules_give_the_well_known_form(root: str, affix: str, form: str) -> None:
    assert inflect(root, parse_affix(affix))[0] == form


@pytest.mark.parametrize(("root", "affix", "form"), cases(LISTED))
def test_forms_that_follow_no_rule_are_listed(root: str, affix: str, form: str) -> None:
    (word,) = (word for word in filipino().by_root[root] if word.notation == affix and form in word.forms)
    assert not word.regular and word.form == form and word.name == affix
    assert inflect(word.marked_root, word.affix)[0] != form


def test_two_spellings_are_both_known_where_both_are_used() -> None:
    assert inflect("luto'", parse_affix("-in-")) == ("niluto", "linuto")
    assert inflect("yakap", parse_affix("-in-")) == ("niyakap", "yinakap")
    assert filipino().accepted("kuha", "-in") == {"kunin", "kuhanin", "kuhain"}


@pytest.mark.parametrize(
    ("root", "affix", "name"),
    [
        ("basa", "-in", "-hin"),
        ("luto'", "-in", "-in"),
        ("alis", "-um-", "um-"),
        ("ganda", "ka-+-an", "ka-+-han"),
        ("sulat", "mag-R", "mag-"),
    ],
)
def test_an_affix_is_named_as_it_shows_in_the_form(root: str, affix: str, name: str) -> None:
    assert surface_notation(root, parse_affix(affix)) == name


@pytest.mark.parametrize("divided", SYLLABLES)
def test_words_are_divided_as_the_orthography_says(divided: str) -> None:
    assert "-".join(syllables(divided.replace("-", ""))) == divided
    assert syllables("pag-ibig") == ["pag", "i", "big"] and syllables("mag-aral") == ["mag", "a", "ral"]


@given(written)
def test_syllables_join_to_the_word_and_each_has_one_vowel(word: str) -> None:
    parts = syllables(word)
    assert "".join(parts) == word
    vowels = [sum(letter in VOWELS for letter in letters(part)) for part in parts]
    assert vowels == [1] * len(parts) or (len(parts) == 1 and vowels == [0])


def test_inflection_keeps_what_it_must() -> None:
    for word in filipino().words:
        require_kept(word)


def require_kept(word: Word) -> None:
    affix = word.affix
    for form in word.forms:
        assert form == form.strip("-") and form.replace("-", "").isalpha() and form.islower()
        if not word.regular:
            continue
        with_infix = affix.infix in form or (affix.infix == "in" and form.startswith("ni"))  # niluto beside linuto
        assert form.endswith(affix.suffix) and with_infix and form.startswith(affix.prefix[:-2] if affix.prefix else "")
        if affix.repeats and not affix.prefix and not affix.infix:
            assert form == reduplicant(word.root) + word.root
    assert spelled(word.marked_root) == word.root
