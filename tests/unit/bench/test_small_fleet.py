"""Three servers behind a proxy in virtual time, many times; a real run of a minute shows one of them."""

from forebay_server.bench.small_fleet import fourth, mixed


def test_heavy_and_light_cameras_even_out_however_they_were_placed():
    assert max(mixed(seed).value for seed in range(60)) <= 1.3


def test_a_server_that_is_added_gets_its_share():
    assert min(fourth(seed, 8).value for seed in range(20)) >= 0.15


def test_a_server_that_is_added_after_long_gets_streams_too():
    shares = sorted(fourth(seed, 300).value for seed in range(20))
    assert shares[10] >= 0.1
    assert shares[0] > 0
