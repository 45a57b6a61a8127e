"""The pages about restore drills and certificates say what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from stook.audits.allowance import DAY_MS
from stook.errors import ReasonCode
from stook.renter import certificate, drill_plan

DOCS = Path(__file__).parents[2] / "docs"
FORMAT = (DOCS / "formats/certificate.md").read_text()
RULES = (DOCS / "protocol/drills.md").read_text()
FLAT = re.sub(r"\s+", " ", RULES)


def test_the_table_lists_the_fields_in_order() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)`", FORMAT, re.M)
    assert [(int(number), name) for number, name in rows] == list(enumerate(certificate.Certificate.__struct_fields__))


def test_small_records_and_bounds() -> None:
    assert "`[certificate, signature]`" in FORMAT
    assert certificate.SignedCertificate.__struct_fields__ == ("certificate", "signature")
    assert "`[version, certificates]`" in FORMAT
    assert certificate.CertificateFile.__struct_fields__ == ("version", "certificates")
    assert f"1 to\n{certificate.MAX_CHAIN} `SignedCertificate`" in FORMAT
    assert certificate.CONFIDENCE_PPM == 950_000
    assert certificate.PERIOD_MS == 30 * DAY_MS


def test_the_numbers_of_the_plan() -> None:
    assert f"a chance of 1/{drill_plan.SPOT_SHARE}" in FLAT
    assert drill_plan.REST_MS == DAY_MS
    assert "not drilled within a day" in FLAT
    assert drill_plan.FIRST_RETRY_MS == 3_600_000
    assert "again after 1 hour, then twice as long each time, 7 days at most" in FLAT
    assert drill_plan.LAST_RETRY_MS == 7 * DAY_MS
    assert "From the third failure in a row on it is *reported*" in FLAT
    assert drill_plan.REPORTED_AT == 3


def test_every_code_and_page_named_exists() -> None:
    assert set(re.findall(r"\b[A-Z]+_[A-Z_]+\b", FORMAT)) <= set(ReasonCode.__members__)
    for text, folder in ((FORMAT, "formats"), (RULES, "protocol")):
        for page in re.findall(r"`((?:\.\./)?[\w/-]+\.md)`", text):
            assert (DOCS / folder / page).resolve().is_file(), page
