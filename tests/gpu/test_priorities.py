"""Device streams have the priorities of their models, as far as this GPU distinguishes them."""

from forebay_server.engines.device import StreamPriority


def test_streams_have_the_priorities_they_were_made_with(rig, measured):
    from forebay_server.engines.cuda.calls import check, runtime

    streams = {priority: rig.keep(rig.device.create_stream("s", priority=priority)) for priority in StreamPriority}
    numbers = {
        priority: int(check(runtime.cudaStreamGetPriority(stream.raw), "cudaStreamGetPriority"))
        for priority, stream in streams.items()
    }
    least, greatest = check(runtime.cudaDeviceGetStreamPriorityRange(), "cudaDeviceGetStreamPriorityRange")
    measured(f"range {least} to {greatest}: {', '.join(f'{p.value} {number}' for p, number in numbers.items())}")
    assert [numbers[priority] for priority in StreamPriority] == sorted(numbers.values(), reverse=True)
    assert numbers[StreamPriority.LOW] == least
    assert numbers[StreamPriority.COPY] == greatest
    if least - greatest >= 3:
        assert len(set(numbers.values())) == len(StreamPriority)
