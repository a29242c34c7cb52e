"""The pytest plugin, in test runs of its own: real ones, in processes of their own."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from otel_concurrency import pytest_plugin
from programs import plugins_of_pytest

pytest_plugins = ("pytester",)

PAGE = Path(__file__).parents[1] / "docs" / "testing.md"

SHOP = """
import threading
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace

tracer = trace.get_tracer(__name__)


def place_order():
    with tracer.start_as_current_span("order"), ThreadPoolExecutor(1) as pool:
        pool.submit(send_receipt).result()


def send_receipt():
    tracer.start_span("send_receipt").end()
"""


@pytest.fixture
def run(pytester, monkeypatch):
    """Return what runs tests in a process of its own, where the shop is there to be tested."""
    for variable in list(os.environ):
        if variable.startswith(("OTEL_", "PYTEST_")):
            monkeypatch.delenv(variable)
    pytester.makepyfile(shop=SHOP)

    def run(tests, *arguments, beside=()):
        pytester.makepyfile(test_it=tests)
        flags = ("--strict-markers", "--strict-config", "-W", "error")
        return pytester.runpytest_subprocess(*flags, *plugins_of_pytest(*beside), *arguments)

    return run


def example():
    """Return the example on the page "Testing", in Python."""
    (found,) = re.findall(r"<!-- ci: pytest -->\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return found


def test_the_pages_example_passes(run):
    """Word for word, on a shop that is whole."""
    result = run(example())
    result.assert_outcomes(passed=1)


def test_the_readmes_example_fails_where_the_trace_breaks(run, monkeypatch):
    """With the primitive off it prints the tree with the break, and the reason."""
    monkeypatch.setenv("OTEL_PYTHON_CONCURRENCY_FUTURES", "off")
    result = run(example())
    result.assert_outcomes(failed=1)
    result.stdout.re_match_lines(
        [
            r"E +AssertionError: the spans are not connected: they are 2 traces",
            r"E +order +[\d.]+ ms +MainThread",
            r"E +└✗ send_receipt +[\d.]+ ms +\S+ +✗ a trace of its own, apart from 'order'",
            r"E +.*shop\.py:\d+ inside span `order`.*",
            r"E +.*OTEL_PYTHON_CONCURRENCY_FUTURES=parent.*",
        ]
    )
    assert len(example().strip().splitlines()) <= 8


def test_a_test_names_the_call_to_write_where_no_hook_can_carry(run):
    """The line that hands off by a list, and the function that was wrapped too early."""
    result = run(
        """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        from otel_concurrency import wrap
        from shop import send_receipt, tracer

        send = wrap(send_receipt)

        def test_wrapped_early(spans):
            with tracer.start_as_current_span("order"), ThreadPoolExecutor(1) as pool:
                pool.submit(send).result()
            spans.assert_no_orphans()

        def test_list(spans):
            receipts, there_are, sent = [], threading.Event(), threading.Semaphore(0)

            def work():
                while there_are.wait(30):
                    there_are.clear()
                    while receipts:
                        receipts.pop()()
                        sent.release()

            threading.Thread(target=work, daemon=True).start()
            for _ in range(2):
                with tracer.start_as_current_span("order"):
                    receipts.append(send_receipt)
                    there_are.set()
                sent.acquire(timeout=30)
            spans.assert_no_orphans()
        """
    )
    result.assert_outcomes(failed=2)
    words = re.sub(r"\s*\nE\s*[│└├─ ]*", " ", result.stdout.str())
    assert re.search(r"`send_receipt` at \S*shop\.py:\d+, which was wrapped where no span", words)
    assert "`otel_concurrency.wrap(send_receipt)`" in words
    assert re.search(r"put `otel_concurrency\.capture\(\)` .* before \S*test_it\.py:\d+", words)


def test_nothing_is_imported_until_it_is_used(run):
    """A run that has nothing to do with it imports the plugin and the package's name, no more."""
    result = run(
        """
        import sys

        def test_it():
            ours = {name for name in sys.modules if name.startswith("otel_concurrency")}
            assert ours == {
                "otel_concurrency", "otel_concurrency.version", "otel_concurrency.pytest_plugin"
            }
            assert "opentelemetry" not in sys.modules
            assert "wrapt" not in sys.modules
        """
    )
    result.assert_outcomes(passed=1)


def test_an_old_pytest_can_load_it():
    """It uses no wrapper of the newer kind, by which an old pytest would fail every run."""
    options = [
        getattr(each, "pytest_impl", {}).get("wrapper") for each in vars(pytest_plugin).values()
    ]
    assert False in options
    assert True not in options


def test_what_there_is_is_listed(run):
    """The fixture, the markers and the option are where pytest shows such."""
    assert "spans" in run("", "--fixtures").stdout.str()
    markers = run("", "--markers").stdout.str()
    assert "@pytest.mark.no_context_leaks:" in markers
    assert "@pytest.mark.otel_concurrency(library=True, **settings):" in markers
    assert "otel_concurrency_fail_on_leaks (bool)" in run("", "--help").stdout.str()


def test_tests_are_isolated(run):
    """Each sees its own spans, and finds the process as it would without the others."""
    result = run(
        """
        import threading
        from opentelemetry import trace
        from otel_concurrency import ConcurrencyInstrumentor
        from shop import place_order

        start = vars(threading.Thread)["start"]

        def test_one(spans):
            place_order()
            assert [span.name for span in spans] == ["order", "send_receipt"]

        def test_none():
            assert vars(threading.Thread)["start"] is start
            assert not ConcurrencyInstrumentor().is_instrumented_by_opentelemetry
            assert trace._TRACER_PROVIDER is None
            place_order()

        def test_two(spans):
            assert len(spans) == 0
            place_order()
            spans.assert_parent("send_receipt", "order")
        """
    )
    result.assert_outcomes(passed=3)


def test_a_configured_provider_is_used(run):
    """Also one whose exporters a test of the program's own looks at."""
    result = run(
        """
        import pytest
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import SimpleSpanProcessor
        from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
        from shop import place_order

        def test_before(spans):
            place_order()
            spans.assert_connected()

        @pytest.fixture(scope="session")
        def exported():
            exporter = InMemorySpanExporter()
            provider = TracerProvider()
            provider.add_span_processor(SimpleSpanProcessor(exporter))
            trace.set_tracer_provider(provider)
            return exporter

        def test_configured(exported, spans):
            place_order()
            spans.assert_connected()
            assert {span.name for span in exported.get_finished_spans()} == {
                "order", "send_receipt"
            }

        def test_after(spans, exported):
            exported.clear()
            place_order()
            spans.assert_connected()
            assert len(exported.get_finished_spans()) == 2
        """
    )
    result.assert_outcomes(passed=3)


def test_the_marker_sets_how_the_library_is_on(run):
    """Its keywords are those of `watch`."""
    result = run(
        """
        import pytest
        from shop import place_order

        @pytest.mark.otel_concurrency(futures="link")
        def test_link(spans):
            place_order()
            spans.assert_linked("send_receipt", "order")

        @pytest.mark.otel_concurrency(library=False)
        class TestWithout:
            def test_it(self, spans):
                place_order()
                spans.assert_parent("send_receipt", None)
        """
    )
    result.assert_outcomes(passed=2)


LEAKING = """
import pytest
from opentelemetry import baggage, context
from opentelemetry.context import get_current

{mark}
def test_leaks():
    context.attach(baggage.set_baggage("tenant", "acme"))

{mark}
def test_does_not(request):
    assert not get_current()
    context.detach(context.attach(baggage.set_baggage("tenant", "acme")))

{mark}
def test_fails_by_itself():
    context.attach(baggage.set_baggage("tenant", "acme"))
    assert False, "theirs"

@pytest.fixture
def attached():
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    yield
    context.detach(token)

{mark}
def test_in_the_context_of_a_fixture(attached):
    assert baggage.get_baggage("tenant") == "acme"
"""


def test_the_marker_fails_what_leaks(run):
    """And nothing else; what is left is put right for the next test."""
    result = run(LEAKING.format(mark="@pytest.mark.no_context_leaks"))
    result.assert_outcomes(passed=2, failed=2)
    result.stdout.fnmatch_lines(
        [
            "a context was left attached at *test_it.py:7, with baggage: *",
            "E *AssertionError: theirs",
            "FAILED *::test_leaks*",
            "FAILED *::test_fails_by_itself - AssertionError: theirs*",
        ]
    )
    assert "pytest_plugin.py" not in result.stdout.str()


def test_the_option_fails_whatever_leaks(run, pytester):
    """In every test of the run, without a marker."""
    pytester.makeini("[pytest]\notel_concurrency_fail_on_leaks = true\n")
    result = run(LEAKING.format(mark=""))
    result.assert_outcomes(passed=2, failed=2)


def test_without_either_nothing_fails(run):
    """Other people's runs are theirs."""
    result = run(LEAKING.format(mark="").replace("assert not get_current()", "pass"))
    result.assert_outcomes(passed=3, failed=1)
    assert "left attached" not in result.stdout.str()


def test_nobody_is_warned_where_the_library_was_imported_before_pytest(pytester):
    """As `opentelemetry-instrument` does; what installs a plugin is marked for rewriting."""
    pytester.makeconftest("import pytest\npytest.register_assert_rewrite('otel_concurrency')\n")
    pytester.makepyfile("def test_it():\n    pass\n")
    options = ["-W", "error", *plugins_of_pytest()]
    program = f"import otel_concurrency, pytest\npytest.main({options})"
    result = pytester.run(sys.executable, "-c", program)
    result.assert_outcomes(passed=1)


def test_under_xdist(run):
    """In several processes at once, each of which watches itself."""
    result = run(
        """
        import pytest
        from shop import place_order

        @pytest.mark.parametrize("number", range(8))
        @pytest.mark.no_context_leaks
        def test_it(spans, number):
            place_order()
            assert len(spans) == 2
            spans.assert_connected()
        """,
        "-n",
        "2",
        beside=["xdist"],
    )
    result.assert_outcomes(passed=8)


def test_asynchronous_tests(run):
    """What tasks and executors of a test's event loop do is seen as well."""
    result = run(
        """
        import asyncio
        import pytest
        from opentelemetry import trace
        from shop import send_receipt, tracer

        pytestmark = [pytest.mark.anyio, pytest.mark.no_context_leaks]

        @pytest.fixture
        def anyio_backend():
            return "asyncio"

        async def test_it(spans):
            loop = asyncio.get_running_loop()
            with tracer.start_as_current_span("order"):
                await loop.run_in_executor(None, send_receipt)
                await asyncio.create_task(asyncio.to_thread(send_receipt))
            spans.assert_parent("send_receipt", "order")
            assert len(spans) == 3

        async def test_next(spans):
            assert len(spans) == 0
            assert not trace.get_current_span().is_recording()
        """,
        beside=["anyio"],
    )
    result.assert_outcomes(passed=2)


def test_a_fixture_of_the_programs_own_comes_first(run, pytester):
    """A program that has a fixture of the same name keeps it."""
    pytester.makeconftest(
        "import pytest\n@pytest.fixture\ndef spans():\n    return 'the program\\'s own'\n"
    )
    result = run("def test_it(spans):\n    assert spans == 'the program\\'s own'\n")
    result.assert_outcomes(passed=1)


def test_it_can_be_switched_off(run):
    """By its name, as any plugin; then neither fixture nor markers are there."""
    result = run("def test_it(spans):\n    pass\n", "-p", "no:otel_concurrency")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*fixture 'spans' not found*"])


def test_an_unknown_keyword_of_the_marker_fails_the_test(run):
    """A misspelled setting is no setting: the test fails, and the keyword is named."""
    result = run(
        """
        import pytest

        @pytest.mark.otel_concurrency(quue="off")
        def test_misspelled(spans):
            pass

        @pytest.mark.otel_concurrency(queue="off", library=True, skip_dep_check=True)
        def test_spelled(spans):
            pass
        """
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*does not know 'quue'*"])
