"""`stook durability`: the number, what stands behind it, and the calculator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cli_commands import Stook, renter, stook
from test_renter_outlook import farmers, held, look

from stook.cli.cmd_durability import break_words, figure_words, odds, outlook_fields, party, proof_words
from stook.renter.durability import grouped_loss_chance, loss_chance
from stook.renter.outlook import Outlook
from stook.shards.geometry import Policy

__all__ = ["renter", "stook"]


def some(**more: object) -> Outlook:
    return look([held(1, 1, 2, 3, 4), held(2, 2, 3, 4, 5)], farmers(1, 2, 3, 4, 5, **more))  # type: ignore[arg-type]


def test_the_calculator_is_the_exact_sum_and_needs_no_home(stook: Stook) -> None:
    ran = stook("durability", "--plan", "4/10", "--json")
    assert ran.code == 0
    found = ran.json
    assert found["policy"] == {"k": 4, "r": 6, "o": 8, "n": 10}
    assert (found["expansion"], found["may_be_lost"]) == (2.5, 6)
    assert found["loss_if_each_shard_is_lost_with"]["0.5"] == loss_chance(4, 10, 0.5)
    assert found["loss_per_window_from_n"] == pytest.approx(
        grouped_loss_chance(4, [1] * 10, found["shard_loss_per_window"], 1 - 0.99 ** (72 / 8766))
    )
    text = stook("durability", "--plan", "4/10").out
    assert "2.50 times" in text
    assert "1 in" in text


def test_groups_make_a_plan_worse(stook: Stook) -> None:
    alone = stook("durability", "--plan", "4/10", "--json").json["loss_per_year_from_r"]
    paired = stook("durability", "--plan", "4/10", "--groups", "5,5", "--json").json["loss_per_year_from_r"]
    assert paired > 100 * alone
    safer = stook(
        "durability", "--plan", "4/10", "--farmer-loss", "0.01", "--window", "24", "--group-loss", "0", "--json"
    )
    assert safer.json["loss_per_year_from_r"] < alone


@pytest.mark.parametrize(
    "words",
    [
        ("--plan", "many"),
        ("--plan", "4/10", "--groups", "5,4"),
        ("--plan", "4/10", "--groups", "5,x"),
        ("--plan", "4/10", "--groups", "10,0"),
        ("--plan", "4/10", "--farmer-loss", "1"),
        ("--plan", "4/10", "--window", "0"),
        ("--plan", "4/10", "photos"),
        ("--groups", "5,5"),
        ("--farmer-loss", "0.1"),
    ],
)
def test_what_makes_no_sense_is_refused(stook: Stook, words: tuple[str, ...]) -> None:
    assert stook("durability", *words).code == 2


def test_without_a_home_or_a_bucket_it_says_what_to_do(stook: Stook, renter: Stook, tmp_path: Path) -> None:
    assert stook("durability", home=tmp_path / "no-home").code == 2
    assert "No bucket yet" in renter("durability").err
    assert renter("durability", "nowhere").code == 3
    renter("mb", "b")
    assert "nothing at farmers" in renter("durability").out
    assert renter("durability", "b", "--json").json["segments"] == 0


def test_odds_are_what_people_say() -> None:
    assert odds(1 / 25_300) == "1 in 25,000"
    assert odds(0.011) == "1 in 91"
    assert odds(0.9) == "90%"
    assert odds(1.0) == "100%"
    assert odds(0.0).startswith("none")


def test_the_figure_in_words() -> None:
    assert figure_words(some()).startswith("the chance that any of it is lost within a year is between 1 in")
    assert "to be wary, 1 in" in figure_words(some())
    lost = look([held(1, 1)], farmers(1))
    assert figure_words(lost) == "1 segment cannot be read now, unless farmers come back"


def test_an_unproven_grid_is_called_one() -> None:
    young, grown, old = some(years=0.01), some(years=1.0), some(years=100.0)
    assert any("still mostly an assumption" in line for line in proof_words(young))
    assert any("29% of this is an assumption" in line for line in proof_words(grown))
    assert not any("assumption" in line for line in proof_words(old))
    assert any("None of 8 shards was proved by an audit" in line for line in proof_words(old))
    gone = look([held(1, 1, 2, 3, 4)], farmers(1, 2, 3) | farmers(4, gone=True, losses=1.0))
    assert any("1 farmer silent for a week" in line for line in proof_words(gone))


def test_what_would_break_it_in_words() -> None:
    tight = look([held(1, 1, 2, policy=Policy(1, 1, 1, 2))], farmers(1, 2))
    (line,) = break_words(tight)
    assert line.count("farmer 0000") == 2
    assert line.endswith("if both were lost at once, 1 segment could not be rebuilt")
    wide = look([held(1, *range(8), policy=Policy(2, 4, 6, 8))], farmers(*range(8)))
    assert break_words(wide) == [
        "no two farmers, operators, networks or failure domains together: the weakest segment can lose 6 shards"
    ]
    many = look([held(n, *range(2 * n, 2 * n + 2), policy=Policy(1, 1, 1, 2)) for n in range(9)], farmers(*range(18)))
    assert break_words(many)[-1] == "and 4 more, of 9 segments looked at"
    assert break_words(look([], {})) == []
    assert party("domain shed\n") == "failure domain shed\\n"
    assert party("operator anna") == "operator anna"


def test_programs_get_all_of_it() -> None:
    fields = outlook_fields("b", some())
    json.dumps(fields)
    assert fields["loss_per_year"]["at_least"] <= fields["loss_per_year"]["at_most"]
    assert fields["assumptions"] == {"repair_window_hours": 72.0, "group_loss_per_year": 0.01}
