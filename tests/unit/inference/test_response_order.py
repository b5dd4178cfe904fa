"""Responses leave in the order of their requests within a flow, each once, and no flow waits for another."""

import gc
import weakref

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from forebay_server.service.frontend.open_inference.response_order import ResponseOrder

FLOWS = [("a", ""), ("a", "door"), ("b", "")]


class ResponseOrderMachine(RuleBasedStateMachine):
    """The model is a list of requests for each flow, in order: [number, place, has a response]."""

    def __init__(self):
        super().__init__()
        self.order = ResponseOrder()
        self.read = 0
        self.flows = {flow: [] for flow in FLOWS}
        self.ready = []  # numbers, in the order in which they could be taken
        self.taken = {flow: [] for flow in FLOWS}
        self.flow_of = {}

    def without_response(self):
        return [request for requests in self.flows.values() for request in requests if not request[2]]

    @rule(flow=st.sampled_from(FLOWS))
    def a_request_is_read(self, flow):
        self.read += 1
        self.flow_of[self.read] = flow
        self.flows[flow].append([self.read, self.order.add(flow), False])

    @precondition(lambda self: self.without_response())
    @rule(data=st.data())
    def a_request_ends(self, data):
        request = data.draw(st.sampled_from(self.without_response()))
        number, place, _ = request
        requests = self.flows[self.flow_of[number]]
        is_first = requests[0] is request
        assert self.order.respond(place, number) == is_first
        request[2] = True
        while requests and requests[0][2]:
            self.ready.append(requests.pop(0)[0])

    @rule()
    def the_writer_takes(self):
        taken = self.order.take()
        assert taken == (self.ready.pop(0) if self.ready else None)
        if taken is not None:
            self.taken[self.flow_of[taken]].append(taken)

    @invariant()
    def it_counts_what_was_read_and_not_taken(self):
        assert len(self.order) == self.read - sum(map(len, self.taken.values()))

    @invariant()
    def responses_leave_in_the_order_of_their_flow_and_once(self):
        for flow, taken in self.taken.items():
            of_flow = [number for number in range(1, self.read + 1) if self.flow_of[number] == flow]
            assert taken == of_flow[: len(taken)]

    def teardown(self):
        """Nothing is left behind: every request that ends now is ready in every flow."""
        for number, place, has_response in [request for requests in self.flows.values() for request in requests]:
            if not has_response:
                self.order.respond(place, number)
        while (taken := self.order.take()) is not None:
            self.taken[self.flow_of[taken]].append(taken)
        assert sum(map(len, self.taken.values())) == self.read
        self.responses_leave_in_the_order_of_their_flow_and_once()
        assert not self.order._flows, "a flow without requests is remembered"


TestResponseOrder = ResponseOrderMachine.TestCase


def test_a_response_that_comes_after_the_client_has_left_is_forgotten():
    order = ResponseOrder()
    places = [order.add(flow) for flow in (*FLOWS, FLOWS[0])]
    assert order.respond(places[0], "first")
    order.clear()
    assert len(order) == 0
    assert order.take() is None
    assert [order.respond(place, "late") for place in places[1:]] == [False] * 3
    assert order.take() is None


class Response:
    pass


def test_a_response_that_was_taken_is_freed_without_the_collector_of_cycles():
    order, response = ResponseOrder(), Response()
    held = weakref.ref(response)
    place = order.add(FLOWS[0])
    order.respond(place, response)
    del response, place
    gc.disable()
    try:
        order.take()
        assert held() is None
    finally:
        gc.enable()
