"""`sms.templates`: Kazakhstan's texts word for word, with more and less known, and what is wrong in a file."""

from __future__ import annotations

import datetime
from itertools import product
from pathlib import Path

import pytest

from sms.segment import segment
from sms.setup import read_texts
from sms.templates import ANSWERS, KINDS, LONGEST, STYLES, Answer, Draft, Kind, Style, TemplateError, Templates, Values

TEXTS = Path(__file__).parents[3] / "config" / "sms" / "kz.toml"
TERMS = "https://operator.example/terms"
DAY = datetime.date(2026, 12, 31)
ALL = Values("35900100000003", "77000000001", "123456789012", DAY)
IMEI = "359001000000039"

# The beginnings and ends that hold nobody's values, then what is between them: all known, IIN unknown, number unknown,
# neither known.
WITH_PERSON: dict[tuple[Kind, str], tuple[str, tuple[str, str, str, str], str]] = {
    ("grey-granted", "ru"): (
        "Перезагрузите устройство, чтобы всё работало корректно. Ваше устройство с 359001000000039 не верифицировано и "
        "внесено в «серый список» государственной базы данных идентификационных кодов. Вам предоставлен временный "
        "доступ к сети до 31.12.2026 по данным: ",
        (
            "IMEI 359001000000039, номер 77000000001, ИИН 123456789012. ",
            "IMEI 359001000000039, номер 77000000001. ",
            "IMEI 359001000000039, ИИН 123456789012. ",
            "IMEI 359001000000039. ",
        ),
        "Чтобы получить полный доступ, пройдите верификацию устройства в госбазе: http://kz-imei.kz/",
    ),
    ("grey-granted", "kk"): (
        "Құрылғы дұрыс жұмыс істеуі үшін оны қайта жүктеу керек. 359001000000039 деген IMEI-коды бар құрылғыңыз "
        "сәйкестендіруден өтпеген және мемлекеттік сәйкестендіру кодтарының дерекқорында «сұр тізімге» енген. "
        "31.12.2026 дейін ",
        (
            "IMEI 359001000000039, нөмір 77000000001, ЖСН 123456789012 дерегі бойынша ",
            "IMEI 359001000000039, нөмір 77000000001 дерегі бойынша ",
            "IMEI 359001000000039, ЖСН 123456789012 дерегі бойынша ",
            "IMEI 359001000000039 дерегі бойынша ",
        ),
        "желіні уақытша пайдалануға рұқсат берілді. Байланысты толық пайдалану үшін мемлекеттік базада құрылғыңызды "
        "сәйкестендіріңіз: http://kz-imei.kz/",
    ),
    ("reminder", "ru"): (
        "Срок временного доступа к сети для устройства ",
        (
            "с IMEI 359001000000039, номером 77000000001, ИИН 123456789012 истекает ",
            "с IMEI 359001000000039, номером 77000000001 истекает ",
            "с IMEI 359001000000039, ИИН 123456789012 истекает ",
            "с IMEI 359001000000039 истекает ",
        ),
        "31.12.2026. Чтобы устройство не заблокировалось, пройдите его верификацию в госбазе: http://kz-imei.kz/",
    ),
    ("reminder", "kk"): (
        "",
        (
            "IMEI-коды 359001000000039, нөмірі 77000000001, ЖСН 123456789012 деген құрылғыда ",
            "IMEI-коды 359001000000039, нөмірі 77000000001 деген құрылғыда ",
            "IMEI-коды 359001000000039, ЖСН 123456789012 деген құрылғыда ",
            "IMEI-коды 359001000000039 деген құрылғыда ",
        ),
        "желіні уақытша пайдалану мерзімі 31.12.2026 аяқталады. Құрылғыңыз бұғатталып қалмауы үшін оны мемлекеттік "
        "базада сәйкестендіріңіз: http://kz-imei.kz/",
    ),
    ("status", "ru"): (
        "Данные вашего устройства: ",
        (
            "IMEI 359001000000039, номер 77000000001, ИИН 123456789012. ",
            "IMEI 359001000000039, номер 77000000001. ",
            "IMEI 359001000000039, ИИН 123456789012. ",
            "IMEI 359001000000039. ",
        ),
        "Вам предоставлен временный доступ к сети до 31.12.2026. Проверить статус IMEI-кода и самостоятельно "
        "верифицировать устройство можно в госбазе: https://kz-imei.kz",
    ),
    ("status", "kk"): (
        "Құрылғыңыздың дерегі: ",
        (
            "IMEI 359001000000039, нөмір 77000000001, ЖСН 123456789012. ",
            "IMEI 359001000000039, нөмір 77000000001. ",
            "IMEI 359001000000039, ЖСН 123456789012. ",
            "IMEI 359001000000039. ",
        ),
        "31.12.2026 дейін желіні уақытша пайдалануға рұқсат берілді. IMEI-кодтың мәртебесін тексеріп, құрылғыны өз "
        "бетіңізше верификациялау үшін мемлекеттік базаға кіріңіз: https://kz-imei.kz",
    ),
}
WITHOUT_PERSON: dict[tuple[Style | None, Kind | Answer, str], str] = {
    (None, "black-attempt", "ru"): "Устройство с IMEI 359001000000039 в «черном списке» государственной базы данных "
    "идентификационных кодов. Услуги связи в этом устройстве заблокированы. Чтобы восстановить доступ, пройдите "
    "верификацию устройства в госбазе: http://kz-imei.kz/",
    (None, "black-attempt", "kk"): "359001000000039 деген IMEI-коды бар құрылғы мемлекеттік сәйкестендіру кодтарының "
    "дерекқорында «қара тізімге» енген. Бұл құрылғыдағы байланыс қызметтері бұғатталды. Байланысты қайта пайдалану "
    "үшін мемлекеттік базада құрылғыңызды сәйкестендіріңіз: http://kz-imei.kz/",
    ("friendly", "black-expired", "ru"): "Устройство с IMEI 359001000000039 внесено в «черный список» государственной "
    "базы данных идентификационных кодов. Услуги связи в этом устройстве заблокированы. Чтобы разблокировать "
    "устройство, пройдите его верификацию в госбазе: http://kz-imei.kz/",
    ("friendly", "black-expired", "kk"): "359001000000039 деген IMEI-коды бар құрылғы мемлекеттік сәйкестендіру "
    "кодтарының дерекқорында «қара тізімге» енген. Бұл құрылғыдағы байланыс қызметтері бұғатталды. Құрылғыны бұғаттан "
    "шығару үшін оны мемлекеттік базада сәйкестендіріңіз: http://kz-imei.kz/",
    ("legal", "black-expired", "ru"): "Устройство (IMEI 359001000000039) заблокировано из-за отсутствия сведений о "
    "законности использования вашего устройства (IMEI 359001000000039) в РК в связи с введением новых требований "
    "пунктов 12-2 и 12-3 Правил регистрации абонентских устройств сотовой связи. Подробнее: http://kz-imei.kz/",
    ("legal", "black-expired", "kk"): "Құрылғы (IMEI 359001000000039) бұғатталды: ұялы байланыстың абоненттік "
    "құрылғыларын тіркеу қағидаларының 12-2 және 12-3-тармақтарының жаңа талаптары енгізілуіне байланысты "
    "құрылғыңызды (IMEI 359001000000039) ҚР-да заңды пайдалану туралы мәліметтер жоқ. Толығырақ: http://kz-imei.kz/",
    ("legal", "grey-granted", "ru"): "Выключите и включите устройство, чтобы все работало корректно. Вам предоставлен "
    "ВРЕМЕННЫЙ доступ к услугам связи до 31.12.2026. В связи с введением новых требований пунктов 12-1, 12-2 и 12-3 "
    "Правил регистрации абонентских устройств сотовой связи из-за отсутствия сведений о законности использования "
    "вашего устройства (IMEI 359001000000039). Подробнее: http://kz-imei.kz/ Продолжая пользоваться связью, вы "
    "соглашаетесь с условиями: https://operator.example/terms",
    ("legal", "grey-granted", "kk"): "Құрылғы дұрыс жұмыс істеуі үшін оны өшіріп қосыңыз. Сізге 31.12.2026 "
    "дейін байланыс қызметтерін УАҚЫТША пайдалануға рұқсат берілді. Бұл ұялы байланыстың абоненттік құрылғыларын "
    "тіркеу қағидаларының 12-1, 12-2 және 12-3-тармақтарының жаңа талаптары енгізілуіне және құрылғыңызды (IMEI "
    "359001000000039) заңды пайдалану туралы мәлімет болмауына байланысты. Толығырақ: http://kz-imei.kz/ Әрі қарай "
    "пайдалансаңыз, шарттармен келісесіз: https://operator.example/terms",
    (None, "verified", "ru"): "Устройство с IMEI 359001000000039 верифицировано и внесено в «белый список» "
    "государственной базы данных идентификационных кодов. Вам предоставлен полный доступ к услугам связи в этом "
    "устройстве.",
    (None, "verified", "kk"): "359001000000039 деген IMEI-коды бар құрылғы сәйкестендіруден өткен және мемлекеттік "
    "сәйкестендіру кодтарының дерекқорында «ақ тізімге» енген. Бұл құрылғыда байланысты толық пайдалануға болады.",
    (None, "how-to-find-imei", "ru"): "Чтобы узнать IMEI-код устройства, наберите команду *#06#. Если устройство "
    "новое, то его IMEI можно найти на коробке, на крышке или под крышкой устройства.",
    (None, "how-to-find-imei", "kk"): "Құрылғының IMEI-кодын білу үшін *#06# пәрменін теріңіз. Егер құрылғы жаңа "
    "болса, оның IMEI-коды қорапта, қақпақта немесе қақпақтың астында жазылған болады.",
    (None, "how-to-verify", "ru"): "Проверить статус IMEI-кода и самостоятельно верифицировать устройство можно в "
    "госбазе: https://kz-imei.kz. Чтобы узнать IMEI-код устройства, наберите команду *#06#. Если устройство новое, то "
    "его IMEI можно найти на коробке или крышке устройства.",
    (None, "how-to-verify", "kk"): "IMEI-кодтың мәртебесін тексеріп, құрылғыны өз бетіңізше верификациялау үшін "
    "мемлекеттік базаға кіріңіз: https://kz-imei.kz. Құрылғының IMEI-кодын білу үшін *#06# пәрменін теріңіз. Егер "
    "құрылғы жаңа болса, оның IMEI-коды қорапта немесе қақпақта көрсетіледі.",
}
KNOWLEDGE = (ALL, ALL._replace(iin=""), ALL._replace(msisdn=""), ALL._replace(iin="", msisdn=""))


def load(style: Style = "friendly", link: str = TERMS) -> Templates:
    return read_texts(TEXTS, style, link)


def expected(style: Style, kind: Kind | Answer, language: str, way: int) -> str:
    """Of a text in a style, with this much known (an index in KNOWLEDGE)."""
    for key in ((style, kind, language), (None, kind, language)):
        if key in WITHOUT_PERSON:
            return WITHOUT_PERSON[key]
    before, between, after = WITH_PERSON[kind, language]  # type: ignore[index]
    return before + between[way] + after


@pytest.mark.parametrize("kind, language", list(product((*KINDS, *ANSWERS), ("kk", "ru"))))
@pytest.mark.parametrize("style", STYLES)
def test_every_text_is_word_for_word(style: Style, kind: Kind | Answer, language: str) -> None:
    templates = load(style)
    for way, values in enumerate(KNOWLEDGE):
        assert templates.render(kind, language, values) == expected(style, kind, language, way)


def test_a_status_without_a_date_says_nothing_of_access() -> None:
    status = load().render("status", "ru", Values(ALL.imei))
    assert status.startswith(f"Данные вашего устройства: IMEI {IMEI}. Проверить статус")
    status = load().render("status", "kk", Values(ALL.imei))
    assert status.startswith(f"Құрылғыңыздың дерегі: IMEI {IMEI}. IMEI-кодтың мәртебесін")


@pytest.mark.parametrize("kind", ["grey-granted", "reminder"])
def test_what_always_has_a_date_is_not_rendered_without(kind: Kind) -> None:
    with pytest.raises(ValueError, match="has no date"):
        load().render(kind, "ru", ALL._replace(date=None))


@pytest.mark.parametrize(
    "bad", ["", "7", "+77000000001", "7700000 0001", "77000000001\n", "٧٧٠٠٠٠٠٠٠٠١", "7" * 16, "{iin}"]
)
def test_what_is_no_number_is_unknown(bad: str) -> None:
    assert load().render("reminder", "ru", ALL._replace(msisdn=bad)) == expected("friendly", "reminder", "ru", 2)


@pytest.mark.parametrize("bad", ["12345678901", "1234567890123", "12345678901\x00", "123456789012\n", "12345678901x"])
def test_what_is_no_iin_is_unknown(bad: str) -> None:
    assert load().render("reminder", "kk", ALL._replace(iin=bad)) == expected("friendly", "reminder", "kk", 1)


@pytest.mark.parametrize("imei, digit", [("49015420323751", "8"), ("00000000000000", "0"), ("35900100000003", "9")])
def test_an_imei_has_its_check_digit(imei: str, digit: str) -> None:
    assert f" {imei}{digit} " in load().render("black-attempt", "ru", Values(imei))


@pytest.mark.parametrize("imei", ["", "3590010000000", IMEI, "3590010000000x", "35900100000003\n"])
def test_what_is_no_imei_is_refused_and_not_repeated(imei: str) -> None:
    with pytest.raises(ValueError, match=r"^an IMEI has 14 digits without its check digit$"):
        load().render("black-attempt", "ru", Values(imei))


@pytest.mark.parametrize("style", STYLES)
def test_no_text_takes_more_messages_than_it_is_said_to(style: Style) -> None:
    templates = load(style)
    for kind, language, values in product((*KINDS, *ANSWERS), ("kk", "ru"), KNOWLEDGE):
        most = templates.most_parts(kind, (language,))
        assert segment(templates.render(kind, language, values)).weight <= most
        assert segment(templates.render(kind, language, LONGEST)).weight == most
        assert most <= templates.most_parts(kind, ("kk", "ru")) <= 7
    assert templates.most_parts("reminder", ("ru",), "payload") == 4


def test_drafts_are_those_in_use() -> None:
    both = [Draft(kind, language) for kind in ("verified", "status") for language in ("kk", "ru")]
    legal = [Draft("grey-granted", "kk"), Draft("black-expired", "kk")]
    assert sorted(load().drafts) == sorted(both)
    assert sorted(load("legal").drafts) == sorted(both + legal)
    assert set(read_texts(TEXTS, "legal", TERMS, ("ru",)).drafts) == set(both[1::2])


def parse(
    was: str, now: str, *, style: Style = "friendly", link: str = "", languages: tuple[str, ...] = ("kk", "ru")
) -> Templates:
    content = TEXTS.read_text(encoding="utf-8")
    assert was in content
    return Templates.parse(content.replace(was, now).encode(), "kz.toml", style, link, languages)


@pytest.mark.parametrize(
    "was, now, error",
    [
        ("[styles.friendly]", "[styles.frendly]", "styles.frendly: unknown key"),
        ('\ngrey-granted = "grey-granted"', '\ngrey-grnted = ""', "styles.friendly.grey-grnted: unknown key"),
        ('= "grey-granted"', '= "granted"', "styles.friendly.grey-granted: there is no text granted"),
        ('= "blocked"', '= "stopped"', "styles.legal.black-expired: there is no text stopped"),
        ('iin = "ИИН"', 'inn = "ИИН"', "languages.ru.inn: unknown key"),
        ('[languages.ru]\niin = "ИИН"', "", "languages.ru: missing"),
        ("[languages.ru]", "[words]", "words: unknown key"),
        ('drafts = ["kk"]', 'drafts = ["kz"]', "texts.blocked.drafts: there is no wording in kz"),
        ('drafts = ["kk"]', 'draft = ["kk"]', "texts.blocked.draft: unknown key"),
        ('drafts = ["kk"]', 'drafts = "kk"', "texts.blocked.drafts: Expected"),
        ('ru = "Чтобы', 'en = "Чтобы', "texts.how-to-find-imei.en: unknown key"),
        ('ru = "Чтобы', 'ru = 7 # "', "texts.how-to-find-imei.ru: Expected `str`"),
        ('ru = "Чтобы', '# "', "texts.how-to-find-imei.ru: missing"),
        ("[texts.how-to-verify]", "[texts.how-to]", "texts.how-to-verify: missing"),
        ("[texts.how-to-verify]", "[[texts.how-to-verify]]", "texts.how-to-verify: not a table"),
        ("[texts.status]", "[texts.status", "Expected"),
        ("с {imei} не", "с {imie} не", "texts.grey-granted.ru: unknown placeholder {imie}"),
        ("с {imei} не", "с {imei не", "texts.grey-granted.ru: { at character 75 has no counterpart"),
        ("с {imei} не", "с imei} не", "texts.grey-granted.ru: } at character 79 has no counterpart"),
        ("с {imei} не", "с [{imei}] не", "texts.grey-granted.ru: brackets without a placeholder that may be unknown"),
        ("номером {msisdn}]", "номером {msisdn}", "texts.reminder.ru: [ at character 79 has no counterpart"),
        ("[, номером {msisdn}]", ", номером {msisdn}]", "texts.reminder.ru: ] at character 78 has no counterpart"),
        ("[, {iin}] истекает", "[, {iin} истекает", "texts.reminder.ru: [ has no ]"),
        ("[, {iin}] истекает", ", {iin} истекает", "texts.reminder.ru: {iin} may be unknown in reminder"),
        (
            "[ Вам предоставлен временный доступ к сети до {date}.]",
            " {date}",
            "texts.status.ru: {date} may be unknown in status",
        ),
        ("Чтобы узнать IMEI-код", "{imei}", "texts.how-to-find-imei.ru: an answer has no {imei}"),
        ("Чтобы узнать", r"\u0007", "texts.how-to-find-imei.ru: holds a control character, U+0007"),
        ("Чтобы узнать", "ы" * 20_000, "texts.how-to-find-imei.ru: the text takes 301 short messages"),
        ('ru = "Данные', 'ru = " " # "', "texts.status.ru: empty"),
        ('ru = "Данные', 'ru = "[{iin}]" # "', "texts.status.ru: nothing stands outside brackets"),
    ],
)
def test_mistakes_are_named_with_file_and_key(was: str, now: str, error: str) -> None:
    with pytest.raises(TemplateError) as refused:
        parse(was, now)
    assert str(refused.value).startswith(f"kz.toml: {error}")


def test_the_link_is_asked_for_where_a_text_in_use_has_it() -> None:
    load(link="")
    with pytest.raises(TemplateError, match=r"texts\.verification-required\.kk: obligations_link is not configured"):
        load("legal", link="")
    for bad in ("https://operator.example/\n", "два слова"):
        with pytest.raises(TemplateError, match="obligations_link: not printable"):
            load("legal", link=bad)
    with pytest.raises(TemplateError, match=r"styles\.legal: missing"):
        parse('[styles.legal]\ngrey-granted = "verification-required"\nblack-expired = "blocked"', "", style="legal")


def test_braces_in_a_link_or_doubled_are_letters() -> None:
    templates = parse("Подробнее: ", "{{[[Подробнее]]}}: ", style="legal", link="https://operator.example/{imei}[iin]")
    text = templates.render("grey-granted", "ru", ALL)
    assert "{[Подробнее]}: http://kz-imei.kz/" in text and text.endswith("example/{imei}[iin]")


def test_a_language_that_is_not_asked_for_may_be_missing() -> None:
    assert parse('ru = "Чтобы', '# "', languages=("kk",)).languages == ("kk",)
    with pytest.raises(TemplateError, match=r"languages\.en: missing"):
        parse("", "", languages=("en",))


def test_a_file_that_is_not_there_or_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"none\.toml: No such file"):
        read_texts(tmp_path / "none.toml", "friendly")
    with pytest.raises(TemplateError, match=r"^kz\.toml: .*utf-8"):
        Templates.parse(b"\xff", "kz.toml", "friendly")
