"""A model that failed and has not changed is tried again, ever more rarely."""

from forebay_server.service.models.retries import MOST_LOOKS, Retries


def looks_until_due(retries, name="m"):
    looks = 1
    while not retries.is_due(name):
        looks += 1
    return looks


def test_waits_double_up_to_a_limit():
    retries, waits = Retries(), []
    for _ in range(9):
        retries.note_failure("m")
        waits.append(looks_until_due(retries))
    assert waits == [1, 2, 4, 8, 16, 32, 64, MOST_LOOKS, MOST_LOOKS]


def test_what_never_failed_or_is_forgotten_is_not_due():
    retries = Retries()
    assert not retries.is_due("m")
    retries.note_failure("m")
    retries.forget("m")
    assert not retries.is_due("m")
    retries.note_failure("m")
    assert looks_until_due(retries) == 1


def test_models_wait_on_their_own():
    retries = Retries()
    for _ in range(3):
        retries.note_failure("slow")
    retries.note_failure("quick")
    assert (looks_until_due(retries, "quick"), looks_until_due(retries, "slow")) == (1, 4)
