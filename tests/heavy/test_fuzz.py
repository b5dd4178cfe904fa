"""50,000 changed messages over both protocols, and pictures; `make fuzz` sends a million."""

import asyncio
import os
from pathlib import Path

from tests.support.fuzz import campaign

SEEDS_KEPT = Path(__file__).with_name("fuzz_seeds.txt")
MESSAGES = int(os.environ.get("FOREBAY_FUZZ_MESSAGES", "50000"))
FIRST_SEED = int(os.environ.get("FOREBAY_FUZZ_SEED", "1"))


def kept():
    """Seeds that once went wrong: they are tried first."""
    lines = SEEDS_KEPT.read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def test_no_message_harms_more_than_itself(tmp_path):
    fresh = range(FIRST_SEED, FIRST_SEED + MESSAGES // campaign.MESSAGES)
    asyncio.run(campaign.run(tmp_path, [*kept(), *fresh]))
