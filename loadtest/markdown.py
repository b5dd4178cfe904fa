"""The report as Markdown, for a terminal, a pull request or a CI summary. Pure: a document in, text out."""

from forebay_server.loadtest.report import Document

_COUNTS = ("offered", "sent", "answered", "superseded", "expired", "overloaded", "failed", "lost", "client_dropped")


def number(value: float | None, unit: str = "") -> str:
    """Return a number formatted for people; a dash if there is none."""
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
    text = f"{value:.{digits}f}"
    return f"{text} {unit}".rstrip() if unit else text


def interval(document: Document) -> str:
    """Return the confidence interval of p99 in brackets; empty if there is none."""
    ends = document["p99_ci_ms"]
    return f" [{number(ends[0])}, {number(ends[1])}]" if ends else " [no interval]"


def title(document: Document) -> str:
    """Return the offered load and its target, in one line."""
    scenario, target = document["scenario"], document["target"]
    arrival = scenario["arrival"]
    if arrival == "cameras":
        load = f"{scenario['streams']} cameras at {scenario['fps']:g} fps"
    elif arrival == "closed":
        load = f"closed loop, {scenario['streams']} streams, {scenario['concurrency']} in flight each"
    else:
        load = f"{arrival}, {document['offered_per_s'] or 0:.0f} frames/s on {scenario['streams']} streams"
    return f"{target['model']} at {target['address']}: {load}, {scenario['duration_s']:g} s"


def rows(document: Document) -> list[tuple[str, str]]:
    """Return the headline numbers with their names."""
    ceiling = document["generator"]["null_server_ceiling_per_s"]
    return [
        ("latency p50", number(document["p50_ms"], "ms")),
        ("latency p99", number(document["p99_ms"], "ms") + interval(document)),
        ("latency p99.9, max", f"{number(document['p999_ms'])}, {number(document['max_ms'], 'ms')}"),
        ("slowest answer", _slowest(document["slowest"])),
        ("service p99 (from the actual send)", number(document["service_p99_ms"], "ms")),
        ("age of results p99", number(document["age_p99_ms"], "ms")),
        ("staleness p99 (of the newest result, at any time)", number(document["staleness_p99_ms"], "ms")),
        ("offered, answered", f"{number(document['offered_per_s'])}, {number(document['answered_per_s'], 'per s')}"),
        (
            f"goodput (within {document['good_within_ms']:g} ms)",
            f"{number(document['goodput_per_s'], 'per s')}, {_percent(document['goodput_share'])} of offered",
        ),
        ("warm-up cut", f"{document['warm_up_cut_s']:.1f} s, {document['samples']} answers remain"),
        ("schedule lag p99", number(document["schedule_lag_p99_ms"], "ms")),
        ("event-loop lag p99", number(document["loop_lag_p99_ms"], "ms")),
        ("generator CPU", ", ".join(f"{share:.0%}" for share in document["generator"]["cpu_shares"]) + " of a core"),
        ("null-server ceiling", number(ceiling, "per s")),
    ]


def identity(document: Document) -> str:
    """Return the accounting in one line."""
    ends = " + ".join(f"{name} {document[name]}" for name in _COUNTS[2:8])
    offered = f"offered {document['offered']} = sent {document['sent']} + client_dropped {document['client_dropped']}"
    why = ", ".join(f"{name} {count}" for name, count in document["failed_by"].items() if count)
    failed = f"; failed: {why}" if why else ""
    return f"sent {document['sent']} = {ends}; {offered}; out of order {document['out_of_order']}{failed}"


def text(document: Document) -> str:
    """Return the report for a terminal."""
    lines = [title(document), f"frames: {document['frames']}", "", identity(document), ""]
    lines += [f"{name:<52}{value}" for name, value in rows(document)]
    if document["stages_ms"]:
        lines += ["", f"{'where the time went':<20}{'mean':>10}{'p99':>10}{'slowest 1 %':>14}   (ms)"]
        for name, part in document["stages_ms"].items():
            lines.append(f"{name:<20}{part['mean_ms']:>10.3f}{part['p99_ms']:>10.3f}{part['tail_ms']:>14.3f}")
    lines += ["", *(f"note: {note}" for note in document["notes"])]
    lines += [f"assert: {item['text']} {'holds' if item['holds'] else 'FAILS'}" for item in document["asserts"]]
    lines += [f"verdict: {document['verdict']}", *(f"  {reason}" for reason in document["reasons"])]
    return "\n".join(lines) + "\n"


def markdown(document: Document) -> str:
    """Return the report as a Markdown section."""
    lines = [f"### Load test: {document['verdict']}", "", title(document), ""]
    lines += [f"- {reason}" for reason in (*document["reasons"], *document["notes"])]
    lines += ["", "| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows(document)), ""]
    lines += [f"| {' | '.join(_COUNTS)} |", f"|{' --- |' * len(_COUNTS)}"]
    lines += [f"| {' | '.join(str(document[name]) for name in _COUNTS)} |", ""]
    if document["stages_ms"]:
        lines += ["| where the time went (ms) | mean | p99 | slowest 1 % |", "| --- | --- | --- | --- |"]
        for name, part in document["stages_ms"].items():
            lines.append(f"| {name} | {part['mean_ms']:.3f} | {part['p99_ms']:.3f} | {part['tail_ms']:.3f} |")
        lines.append("")
    return "\n".join(lines)


def _slowest(frames: list[dict[str, float]]) -> str:
    if not frames:
        return "-"
    worst = frames[0]
    return f"{number(worst['latency_ms'], 'ms')}, stream {worst['stream']:g}, due at {worst['due_s']:.2f} s"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share * 100:.1f} %"
