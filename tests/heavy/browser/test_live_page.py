"""The live page in a real browser, against a real server under load. Pictures for the documentation: `screenshots`."""

import asyncio
import contextlib

from forebay.wire import frames_pb2 as pb
from tests.rpc.test_detector import as_jpeg, clip
from tests.support.loops import on_loop
from tests.support.real_server import real_server, simulated

AWKWARD = [
    'quo"te <b>bold</b>',
    "new\nline",
    "\N{PILE OF POO} emoji",
    "x" * 256,
    "<script>document.title='owned'</script>",
]
ORDINARY = ["gate north", "gate south", "dock 1", "dock 2", "dock 3", "lobby", "roof", "yard"]
FRAME_INTERVAL_S = 0.04


@contextlib.asynccontextmanager
async def cameras(running, names, model="sim", **fields):
    """Streams that send a frame every 40 ms until the block ends."""
    is_over = asyncio.Event()

    async def play(name):
        stream = await running.open(
            stream_id=name, model=model, delivery=pb.DELIVERY_LATEST, latency_budget_ms=100, **fields
        )
        reading = asyncio.create_task(stream.drain())
        loop, seq = asyncio.get_running_loop(), 0
        while not is_over.is_set():
            seq += 1
            await stream.send(seq, capture_time_us=int(loop.time() * 1e6))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), FRAME_INTERVAL_S)
        await stream.half_close()
        await reading

    playing = [asyncio.create_task(play(name)) for name in names]
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(*playing)


@contextlib.asynccontextmanager
async def page_under_load(browser, folder, names=ORDINARY, **settings):
    """A server with a model that takes some ms, cameras, and the page open in the browser with every camera listed."""
    simulated(folder / "models", alpha_ms=8, beta_ms=1, max_batch_size=8)
    given = {"admin_address": "127.0.0.1:0", **settings}
    async with real_server(folder / "models", **given) as running, cameras(running, names):
        await asyncio.to_thread(browser.look, 1200, 900)
        await asyncio.to_thread(browser.open, f"http://{running.server.admin_address}/")
        await asyncio.to_thread(browser.wait_for, f"document.querySelectorAll('#rows tr').length === {len(names)}")
        yield running


def cell(name, column):
    """An expression for the text of a camera's cell."""
    row = f"[...document.querySelectorAll('#rows tr')].find((row) => row.firstChild.textContent === {name!r})"
    return f"{row}?.children[{column}].textContent"  # undefined until the row is there


HAS_INK = """(() => {
  const canvas = document.getElementById("strip");
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some((value) => value);
})()"""


@on_loop
async def test_the_page_shows_cameras_models_and_the_pipeline(browser, tmp_path):
    async with page_under_load(browser, tmp_path):
        await asyncio.to_thread(browser.wait_for, f"parseFloat({cell('dock 1', 2)}) > 5")
        await asyncio.to_thread(browser.wait_for, f"parseFloat({cell('dock 1', 7)}) >= 0")  # an age
        await asyncio.to_thread(browser.wait_for, "document.querySelector('.model h3').textContent === 'sim.1'")
        await asyncio.to_thread(browser.wait_for, HAS_INK)
        assert browser.complaints() == []


@on_loop
async def test_the_page_says_which_camera_went_away_and_what_is_wrong_with_the_model(browser, tmp_path):
    findings = "document.getElementById('findings').textContent"
    heads = "[...document.querySelectorAll('#columns th')].filter((head) => head.offsetWidth)"
    async with page_under_load(browser, tmp_path, ORDINARY[:2]) as running:
        await asyncio.to_thread(browser.wait_for, f"{findings}.includes('model sim.1')")
        is_lost = f"/camera yard: gone .* its connection broke/.test({findings})"
        for _ in range(20):  # gRPC may tell of the end of an idle stream before it tells of the cancel
            lost = await running.open(stream_id="yard")
            await asyncio.to_thread(browser.wait_for, f"![undefined, 'gone'].includes({cell('yard', 1)})")
            lost.call.cancel()
            await asyncio.to_thread(browser.wait_for, f"{cell('yard', 1)} === 'gone'")
            if browser.evaluate(is_lost):
                break
        assert browser.evaluate(is_lost)
        assert browser.evaluate("document.title") == "! Forebay"
        back = await running.open(stream_id="yard")
        await asyncio.to_thread(browser.wait_for, f"{cell('yard', 1)} !== 'gone'")
        await asyncio.to_thread(browser.look, 390, 800)
        await asyncio.to_thread(browser.wait_for, "innerWidth === 390")
        await asyncio.to_thread(browser.wait_for, f"{heads}.length === 5")
        titles = browser.evaluate(f"{heads}.map((head) => head.textContent)")
        assert titles == ["Camera", "State", "OK/s", "In time", "p99"]
        assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        assert browser.complaints() == []
        back.call.cancel()


WAITING = """(() => {
  const state = JSON.parse(JSON.stringify(view.state));
  const late = { level: "bad", cause: "model", text: "none of 25 frames a second is in time: it waits for its model" };
  state.streams.slice(0, COUNT).forEach((stream) => Object.assign(stream, late));
  showFindings(state);
  return [...document.querySelectorAll("#findings li")].map((line) => line.textContent);
})()"""


@on_loop
async def test_cameras_that_wait_for_their_model_are_named(browser, tmp_path):
    async with page_under_load(browser, tmp_path):
        await asyncio.to_thread(browser.wait_for, "view.state.models.length === 1")
        browser.evaluate("view.source.close()")
        lines = browser.evaluate(WAITING.replace("COUNT", "1"))
        name = browser.evaluate("view.state.streams[0].name")
        assert f"Problemcamera {name}: none of 25 frames a second is in time: it waits for its model" in lines
        names = browser.evaluate("view.state.streams.map((stream) => stream.name)")
        lines = browser.evaluate(WAITING.replace("COUNT", "2"))
        assert f"Watch2 cameras: late because of the model: {names[0]}, {names[1]}" in lines
        lines = browser.evaluate(WAITING.replace("COUNT", "8"))
        assert f"Watch8 cameras: late because of the model: {', '.join(names[:5])} and 3 more" in lines


@on_loop
async def test_names_are_text_whatever_they_hold(browser, tmp_path):
    async with page_under_load(browser, tmp_path, AWKWARD):
        names = browser.evaluate("[...document.querySelectorAll('#rows th')].map((cell) => cell.textContent)")
        assert sorted(names) == sorted([name.replace("\n", "\u240a")[:80] for name in AWKWARD])
        assert browser.evaluate("document.title") == "Forebay"
        assert browser.evaluate("document.querySelectorAll('#rows b, #rows script').length") == 0
        assert browser.complaints() == []


@on_loop
async def test_the_page_fits_a_phone_and_follows_the_colour_scheme(browser, tmp_path):
    async with page_under_load(browser, tmp_path, [*ORDINARY, "x" * 256]):
        grounds = {}
        for scheme in ("light", "dark"):
            await asyncio.to_thread(browser.look, 390, 800, scheme)
            await asyncio.to_thread(browser.wait_for, "innerWidth === 390")
            grounds[scheme] = browser.evaluate("getComputedStyle(document.body).backgroundColor")
            assert browser.evaluate("document.documentElement.scrollWidth") <= 390
        assert len(set(grounds.values())) == 2


@on_loop
async def test_the_page_can_be_used_by_keyboard(browser, tmp_path):
    async with page_under_load(browser, tmp_path):
        await asyncio.to_thread(browser.press, "/")
        assert browser.evaluate("document.activeElement.id") == "filter"
        for letter in "dock":
            await asyncio.to_thread(browser.press, letter)
        await asyncio.to_thread(browser.wait_for, "document.querySelectorAll('#rows tr').length === 3")
        await asyncio.to_thread(browser.press, "Tab")  # the table's own scrolling
        await asyncio.to_thread(browser.press, "Tab")  # its first column
        await asyncio.to_thread(browser.press, "Enter", "\r")
        sorting = "document.querySelector('#columns th').getAttribute('aria-sort')"
        await asyncio.to_thread(browser.wait_for, f"{sorting} === 'descending'")
        first = "document.querySelector('#rows th').textContent"
        await asyncio.to_thread(browser.wait_for, f"{first} === 'dock 3'")
        await asyncio.to_thread(browser.press, "3")
        assert browser.evaluate("document.querySelector('#spans [aria-pressed=true]').textContent") == "100 ms"


@on_loop
async def test_the_page_says_that_the_server_is_gone_and_goes_on_when_it_is_back(browser, tmp_path):
    status = "document.getElementById('status').textContent"
    async with page_under_load(browser, tmp_path / "one") as running:
        address = running.server.admin_address
        await asyncio.to_thread(browser.wait_for, f"{status} === 'live'")
    await asyncio.to_thread(browser.wait_for, f"{status}.includes('gone')")
    repository = simulated(tmp_path / "two", name="other")
    async with real_server(repository, admin_address=address) as running, cameras(running, ["new"], "other"):
        await asyncio.to_thread(browser.wait_for, f"{status} === 'live'")
        await asyncio.to_thread(browser.wait_for, f"parseFloat({cell('new', 2)}) > 0")


LATE_ROW = """(() => {
  const state = JSON.parse(JSON.stringify(view.state));
  Object.assign(state.streams[0], { level: "bad", cause: "model", ok: 9.6, offered: 13.6, in_time: 0.071, p99: 1394 });
  showStreams(state);
  const table = document.querySelector(".scroll");
  return table.scrollWidth <= table.clientWidth ? [] : [table.scrollWidth, table.clientWidth];
})()"""  # of a phone's table, the button for pictures included: empty if it fits


@contextlib.asynccontextmanager
async def playing_clip(running, frame):
    """A camera that sends a picture ten times a second and allows it to be seen, and one that does not allow it."""
    is_over = asyncio.Event()

    async def play(name, allows):
        stream = await running.open(
            stream_id=name,
            model="detector",
            encoding=pb.ENCODING_JPEG,
            delivery=pb.DELIVERY_LATEST,
            allow_picture=allows,
        )
        reading = asyncio.create_task(stream.drain())
        seq = 0
        while not is_over.is_set():
            seq += 1
            await stream.send(seq, payload=frame)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(is_over.wait(), 0.1)
        await stream.half_close()
        await reading

    tasks = [asyncio.create_task(play("gate north", True)), asyncio.create_task(play("gate south", False))]
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(*tasks)


@on_loop
async def test_the_latest_picture_is_shown_with_its_boxes_to_whoever_asks(browser, tmp_path):
    frame = as_jpeg(clip()[0])
    given = {"admin_address": "127.0.0.1:0", "allow_pictures": True, "cache_folder": tmp_path / "costs"}
    buttons = "[...document.querySelectorAll('#rows button')].filter((button) => !button.hidden)"
    async with real_server(**given) as running, playing_clip(running, frame):
        await asyncio.to_thread(browser.look, 1200, 900)
        await asyncio.to_thread(browser.open, f"http://{running.server.admin_address}/")
        await asyncio.to_thread(browser.wait_for, "document.querySelectorAll('#rows tr').length === 2")
        assert browser.evaluate(f"{buttons}.length") == 1
        assert browser.evaluate(f"{buttons}[0].closest('tr').firstChild.textContent") == "gate north"
        pictures_kept = [stream.session._recorder.picture for stream in running.sessions]
        assert {picture.is_wanted for picture in pictures_kept if picture} == {False}
        browser.evaluate(f"{buttons}[0].focus()")
        await asyncio.to_thread(browser.press, "Enter", "\r")
        text = "document.getElementById('picture-text').textContent"
        await asyncio.to_thread(browser.wait_for, f"{text}.includes('person')")
        first = browser.evaluate(text)
        await asyncio.to_thread(browser.wait_for, f"{text}.split(',')[0] !== {first.split(',')[0]!r}")  # the next one
        orange = """(() => {
          const canvas = document.getElementById("picture-canvas");
          const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
          let count = 0;
          for (let at = 0; at < data.length; at += 4) if (data[at] === 255 && data[at + 1] === 176) count += 1;
          return count;
        })()"""
        assert browser.evaluate(orange) > 100  # the boxes
        for width in (1200, 390):
            await asyncio.to_thread(browser.look, width, 900)
            await asyncio.to_thread(browser.wait_for, f"innerWidth === {width}")
            assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate(LATE_ROW) == []
        await asyncio.to_thread(browser.press, "Escape")
        assert browser.evaluate("document.getElementById('picture').hidden")
        assert browser.evaluate("document.activeElement.textContent") == "Show"
        assert browser.complaints() == []


A_DAY = """(async () => {
  const state = JSON.parse(JSON.stringify(view.state));
  const model = state.models[0];
  const stream = state.streams[0];
  for (let second = 1; second <= SECONDS; second += 1) {
    state.now_s += 1;
    model.sample = [Math.floor(state.now_s), 100, 100, 10 + second % 7, 20 + second % 11];
    const id = FIRST + second * 10;
    state.streams = state.streams.map((each, index) => ({ ...stream, id: id + index, name: `${second}` }));
    view.isPaused = second % 40 !== 0;
    takeState({ data: JSON.stringify(state) });
  }
  view.isPaused = false;
  return view.history.get(model.name).length;
})()"""


@on_loop
async def test_a_page_that_stays_open_for_a_day_does_not_grow(browser, tmp_path):
    """Half a day twice, message by message; one in forty is drawn, with cameras that come and go."""

    def live(seconds, first):
        script = A_DAY.replace("SECONDS", str(seconds)).replace("FIRST", str(first))
        assert browser.evaluate(script) <= 900
        browser.send("HeapProfiler.collectGarbage")
        return browser.send("Runtime.getHeapUsage")["usedSize"]

    async with page_under_load(browser, tmp_path, ORDINARY[:2]):
        await asyncio.to_thread(browser.wait_for, "view.state.models.length === 1")
        browser.evaluate("view.source.close()")
        before = await asyncio.to_thread(live, 43_200, 0)
        after = await asyncio.to_thread(live, 43_200, 1_000_000)
        assert after - before < 1_000_000
        assert browser.evaluate("document.querySelectorAll('#rows tr').length") == 2
