"""The order service of ``trace``'s pictures: it hands work on in many ways, and loses it once."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

from opentelemetry import trace

step = trace.get_tracer("orders").start_as_current_span
warehouse = ThreadPoolExecutor(3, thread_name_prefix="warehouse")
receipts: queue.Queue[str | None] = queue.Queue()
audited: list[str | None] = []
audit_has_work = threading.Condition()


def pause(milliseconds):
    """Stand for the I/O of a step."""
    time.sleep(milliseconds / 1000)


def reserve_stock(_item):
    """Run on a pool of threads."""
    with step("reserve_stock"):
        pause(9)


def quote_shipping():
    """Run on the executor of the event loop."""
    with step("quote_shipping"):
        pause(22)


def fulfil(invoices):
    """Run on a pool of threads, and hand on to another process."""
    with step("fulfil"):
        pause(12)
        invoice = invoices.submit(render_invoice)
        with step("print_label"):
            pause(12)
        invoice.result()


def render_invoice():
    """Run in another process."""
    with step("render_invoice"):
        pause(25)


def notify():
    """Run on a thread of its own."""
    with step("notify"):
        pause(15)


def follow_up():
    """Run on a timer."""
    with step("follow_up"):
        pause(6)


def send_receipts():
    """Consume a queue."""
    for _order in iter(receipts.get, None):
        with step("send_receipt"):
            pause(18)


def write_audit_log():
    """Consume a list, beside a lock: this carries no context."""
    while True:
        with audit_has_work:
            audit_has_work.wait_for(lambda: audited)
            order = audited.pop(0)
        if order is None:
            return
        with step("write_audit_log"):
            pause(10)


def audit(order):
    """Hand an order to the audit log."""
    with audit_has_work:
        audited.append(order)
        audit_has_work.notify()


async def take_order(order, invoices):
    """Serve one request."""
    with step("POST /orders", attributes={"order.id": order, "tenant": "acme"}):
        with step("validate_payment"):
            pause(4)
        stock = asyncio.to_thread(lambda: list(warehouse.map(reserve_stock, "abc")))
        quote = asyncio.get_running_loop().run_in_executor(None, quote_shipping)
        await asyncio.gather(stock, quote)
        warehouse.submit(fulfil, invoices)
        threading.Thread(target=notify, name="notifier").start()
        threading.Timer(0.06, follow_up).start()
        receipts.put(order)
        audit(order)
        pause(5)


async def serve(invoices):
    """Serve three requests."""
    for number in range(3):
        await asyncio.create_task(take_order(f"A-{1001 + number}", invoices))
        await asyncio.sleep(0.05)


def main():
    """Serve, and let all work end."""
    with ProcessPoolExecutor(1) as invoices:
        invoices.submit(int).result()
        for worker in (send_receipts, write_audit_log):
            threading.Thread(target=worker, name=worker.__name__).start()
        asyncio.run(serve(invoices))
        warehouse.shutdown()
        receipts.put(None)
        audit(None)


if __name__ == "__main__":
    main()
