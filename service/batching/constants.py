"""Every constant of batching, with its unit, its reason, and the measurement or the page that it comes from.

None of them is a setting: no model and no load was found that wants another value (docs/batching.md says what was
tried). "mean(b)" is the expected execution time of b rows, "B" the largest batch. Numbers without another source were
measured with `forebay bench batching` in virtual time. tests/meta/test_constants.py keeps constants of batching out of
other modules.
"""

from forebay_server.service.request import TRUSTED_NS

# --- order and instants -----------------------------------------------------------------------------------------------

NEVER_NS = 1 << 62
"""A deadline that never comes: 146 years, later than any instant and small enough to add durations to."""
LATEST_NS = NEVER_NS - 1
"""Where a deadline is cut off that is later: an absurdly late deadline is still a deadline."""
DELAYED_NS = 1 << 61
"""Added to the order key of a request whose queue timeout passed under DELAY: behind every unexpired request."""
LONGEST_ORDER_BUDGET_NS = 1_000_000_000
"""A request without a deadline, or with a later one, is ordered as if it had this budget: behind frames, whose budgets
are 33 to 200 ms, and not starved by them."""

# --- when a batch is bound --------------------------------------------------------------------------------------------

MAX_DEPTH = 3
"""Most batches of a lane between forming and the end of its download. Two overlap copies with execution: one alone
loses 17 % of the capacity. The third is for timers that are so late that late binding does not pay (docs/adr/0010)."""
FULL_BATCH_LEAD = 0.15
"""Part of mean(B) by which a full batch is bound earlier: waiting gains it nothing, and an idle executor is risked.
Without it poisson 1.2 falls from 3,400 to 3,361 a second; twice of it changes nothing."""
LARGEST_GUARD = 0.1
"""Part of mean(b) that the binding guard may take: more would make every batch wait for the lateness of a few."""
AT_ONCE_LATENESS = 0.25
"""Part of mean(b) by which timers have to be late usually for late binding to cost more than it wins
(docs/adr/0010)."""
LATENESS_WINDOW = 256
"""Batches over which the lateness of binding is known: enough for a 99th percentile, some seconds of a busy lane."""
LATENESS_REFRESH = 16
"""Batches after which the percentiles are computed anew: sorting 256 numbers costs 10 us, too much for every batch."""
RETRY_NS = 1_000_000_000
"""So long after the last batch that was bound late, late binding is tried again: a model that was being loaded may
have been the reason (docs/adr/0110)."""
RETRY_BATCHES = 3
"""Batches that such a trial binds late: with three the median is not one that an interrupt made late."""
LONGEST_DELAY_US = 60_000_000
"""Longest max_queue_delay that a configuration may ask for: more than a minute is a mistake of units."""

# --- how large a batch is ---------------------------------------------------------------------------------------------

KNEE_LOAD = 1.05
"""Factor on the rate of arrival when the knee is computed: the rate is an estimate, and too low a knee makes frames
wait."""
KNEE_MARGIN = 2.0
"""Factor on the knee. With 1.5 bursty 0.7 has 87.92 % in time instead of 88.15; with 1 the p99 of poisson 0.8 is 19.4
ms instead of 18.3; without a knee cpu 0.9 falls from 97.10 to 96.54 %."""
GATHER_ALPHAS = 0.5
"""Company is worth waiting for while the oldest request is younger than this part of the fixed cost of a batch: the
alpha/2 rule. A wait delays the waiting requests by no more than it saves."""
OVERHEAD_NS = 150_000
"""Least time that a batch costs the host, even with the fastest model: a decision, three stages, the way back
(docs/adr/0070). Batches are worth growing until the model takes longer than that."""
EFFICIENCY_LOSS = 0.005
"""Part of the best rate that is given up for a smaller batch: rows that gain less than this only add latency."""

# --- who goes first, and who is given up ------------------------------------------------------------------------------

AGED_EVERY = 8
"""One batch in so many may be led by an aged request of a lower priority level: an eighth of the capacity against
starvation."""
AGED_SLACK_BATCHES = 2
"""A request is aged when its order key is nearer than so many largest batches: later it could not be in time any
more."""
OVERLOAD = 0.95
"""Load, as a part of the rate of full batches, above which the former no longer tries to serve all requests: full
batches need some requests that wait, so that the last twentieth of the capacity is not there without a backlog."""
SUSTAINED_OVERLOAD = 0.97
"""Sustained load above which the least served go first where heads are given up: some streams must lose frames.
Without fairness cameras 1.5 has 0.48 of the worst camera's frames in time instead of 0.64."""
CERTAIN_OVERLOAD = 1.05
"""Sustained load above which fairness goes before the deadline even while the head could be in time: above 1 by more
than the rate of arrival scatters."""
GREEDY = 2
"""Full batches' worth of requests that one stream has waiting when it is about to take the places of others: fairness
goes first then, at any load. Neither the age nor the deadlines of its requests may hold up streams that want less
(docs/adr/0115)."""
FAIR_WINDOW, LEAST_FAIR_WINDOW = 8, 512
"""Batches' worth of candidates, the earliest ones, among which the least served go first, and at least so many (twice
the usual permits): bounds the work. Behind fewer the others would be hidden by a greedy stream's earlier deadlines."""
HYSTERESIS = 1.01
"""How much better the rate must be to give a head up: within the scatter of a duration a head is not worth losing."""
LOOK_AGAIN_NS = 1_000_000
"""When to try again to take a batch back whose upload reads its requests just now: host copies of a batch take about
so long."""
SPARE_INSTANTS = 64
"""So many queue timeouts of requests that have left are kept in any case, or a short queue would be swept all the
time."""

# --- demand and shares ------------------------------------------------------------------------------------------------

FASTEST_WINDOW_NS = 50_000_000
"""Shortest window of the rate of arrival: below it the rate of a 30 fps camera is noise."""
WINDOW_BATCHES = 3
"""The window in largest batches, where those take longer: a backlog of fewer says nothing about the rate."""
SUSTAINED_WINDOWS = 20
"""The sustained rate looks back so many windows, a second at least: longer than a burst, shorter than a change of
load."""
SHARE_WINDOW_NS = 10_000_000_000
"""The counted service of a stream fades over ten seconds: fairness is not asked for over a shorter time, and a stream
that was quiet for an hour must not be first for long."""
MAX_IDLE_STREAMS = 8192
"""Streams remembered with their counted service, some 500 bytes each: a client may give every request a stream of its
own."""

# --- what a batch costs -----------------------------------------------------------------------------------------------

QUANTILE_SIGMAS = 2.0
"""An upper estimate is so many standard deviations above the mean: exceeded by one batch of forty."""
FILE_SHARE_GAIN = 0.05
"""Of one request in the share of files: streams that come and go change it within some dozen frames."""
HALF = 0.5
"""Share of files from which on a lone request counts as a file: most are."""
RATIO_GAIN = 0.1
"""Part of an error that the drift ratio takes over: it follows within ten batches, and one batch of 5 % scatter moves
it by half a per cent."""
RATIO_RANGE = (0.05, 8.0)
"""Of the drift ratio. Twenty times faster than calibrated is a calibration beside other work; eight times slower is a
machine that serves nothing in time any more."""
VARIANCE_GAIN = 0.05
"""Of the variance, slower than the ratio: a step in speed is an error of the ratio first. A tenth is left after 45
batches."""
LARGEST_ERROR = 0.5
"""Relative error beyond which a duration is an outlier, ten times the usual scatter."""
OUTLIERS = 3
"""So many outliers in a row on the same side are a new speed (docs/adr/0110): two may be one interruption of the
machine that two batches met."""
LEAST_SIGMA = 0.02
"""Scatter that is assumed at least: with less the upper estimate would be the mean after a quiet minute, and the next
disturbance would make every batch late."""
FIRST_SIGMA = 0.05
"""Scatter that is assumed until it is measured: careful for an executor that scatters less, and corrected within 45
batches."""
DOUBTED_NS = 1_000_000_000
"""After so long without an execution, with requests that were given up, the calibration itself is tried
(docs/adr/0111)."""
PROBES = OUTLIERS + 1
"""Executions of such a trial: so many outliers, and the first execution of a size, which is not learnt from."""
FEASIBILITY_STEP = 0.02
"""Relative change of the least service time that is worth publishing to admission: LEAST_SIGMA hides smaller ones."""
EGRESS_STEP_NS = 1_000_000
"""Admission counts egress in whole steps of this, so that small changes are not published all the time."""
EXECUTED_STEP_NS = TRUSTED_NS // 4
"""How much later the latest execution must be to be published again: a quarter of the time that admission trusts it
for."""
TELLING_NS = 1_000_000
"""Egress is named to a client whose deadline cannot be met from here on: less is lost in the number beside it."""

# --- egress -----------------------------------------------------------------------------------------------------------

EGRESS_WINDOW_NS, EGRESS_WINDOWS = 100_000_000, 8
"""Egress is known as the median over so many windows of so long: one stall of the machine is in one window, and a
change shows within half a second (docs/adr/0011)."""
SILENCE_NS = 1_000_000_000
"""After so long without results egress is learnt anew: the clients may be others."""
LONGEST_NS = 1_000_000_000
"""A longer egress is a stall of the machine."""
FORGOTTEN_NS = 1_000_000_000
"""Results that have not left after a second never will: their clients have gone."""

# --- calibration ------------------------------------------------------------------------------------------------------

STABLE_RUNS, STABLE_SPREAD = 3, 1.10
"""A size is measured when its last three executions agree within 10 %: twice the scatter of a quiet machine."""
LIMIT_NS = 250_000_000
"""Longest measurement of one size: eight sizes take two seconds of a load on a machine that never gets quiet."""
SUSPICIOUS = 1.1
"""How much more than its neighbour's a size must take to be measured again: STABLE_SPREAD."""
MOST_RUNS = 200
"""Ends a calibration whose clock does not move."""
RECHECK_RUNS = 3
"""Executions with which a kept table is checked at load: noise only ever adds, so that one good one is enough."""
RECHECK_TOLERANCE = 0.30
"""How far a kept table may be off at load before it is measured again; the drift ratio corrects smaller errors."""
TABLE_FORMAT = 1
"""Of the file that a table is kept in; another number is another release's and is measured again."""
MAX_FILE_BYTES = 1 << 20
"""Largest file that is read as a table: one of 1,000 sizes has 60 KB."""
MAX_KEPT_NUMBER = 3_600_000_000_000
"""An hour in nanoseconds: a longer duration in a file was not measured by us."""

# --- threads ----------------------------------------------------------------------------------------------------------

SPARE_MESSAGES = 8
"""Room in the former's inbox beside one arrival and one cancellation for each permit and two notices for each slot:
drains, which come once each."""
LONG_STEP_NS = 5_000_000
"""A step of a former that held up the event loop: 25 times the longest that is expected (pipeline's INLINE_NS). A step
that another process interrupted is as long."""
LONG_RUNS = 3
"""So many long steps, or long batches that ran inline, in a row send the work back to its own thread: one alone shows
nothing about the model."""
REST_NS = 1_000_000_000
"""After so long on its own thread, one step is tried on the event loop again, or one batch inline."""
