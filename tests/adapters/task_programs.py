"""Programs in which a library's task, started in a request, works for others and in rounds.

``test_clean_tasks`` runs each after its own prelude. Where the service is somebody else's, the
program has a server that speaks its protocol.
"""

from __future__ import annotations

PSYCOPG_POOL = """
from psycopg_pool import AsyncConnectionPool

async def main():
    opened = asyncio.Event()
    async def configure(connection):
        if opened.is_set():
            mark()
    pool = AsyncConnectionPool(
        f"host=127.0.0.1 port={PORT} user=postgres dbname=postgres",
        min_size=1, max_size=1, configure=configure, open=False,
    )
    async def replace():
        await opened.wait()
        async with pool.connection() as connection:
            await connection.close()
    other = asyncio.create_task(replace())
    with request("first"):
        await pool.open(wait=True)
        opened.set()
        await until_marked()
    await replace()
    await until_marked()
    await other
    await pool.close()
run(main)
"""

PROCRASTINATE = """
import psycopg
from procrastinate import App, PsycopgConnector

async def main():
    server = f"host=127.0.0.1 port={PORT} user=postgres"
    database = "jobs_" + names_database()
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"create database {database}")
    app = App(connector=PsycopgConnector(conninfo=f"{server} dbname={database}"))
    job = app.task(mark_it, name="job")
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        with request("first"):
            worker = asyncio.create_task(app.run_worker_async(install_signal_handlers=False))
            await work_twice(job.defer_async)
        await work_twice(job.defer_async)
        worker.cancel()
        await asyncio.gather(worker, return_exceptions=True)

def names_database():
    import uuid
    return uuid.uuid4().hex

run(main)
"""

NATS_STREAM = """
import nats

async def main():
    other = await nats.connect(f"nats://127.0.0.1:{PORT}")
    async def send():
        await other.jetstream().publish("stream.a", b"message")
    with request("first"):
        client = await nats.connect(f"nats://127.0.0.1:{PORT}")
        stream = client.jetstream()
        await stream.add_stream(name="stream", subjects=["stream.*"])
        await stream.subscribe("stream.a", cb=mark_it, ordered_consumer=True, idle_heartbeat=0.2)
        await work_twice(send)
    await work_twice(send)
    await client.close()
    await other.close()
run(main)
"""

SOCKETIO_RECONNECT = """
import socketio
from aiohttp import web

async def main():
    server = socketio.AsyncServer(async_mode="aiohttp")
    application = web.Application()
    server.attach(application)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    client = socketio.AsyncClient(reconnection_delay=0.05, randomization_factor=0)
    async def send():
        for connection in runner.server.connections:
            connection.transport.abort()
    with request("first"):
        await client.connect(
            f"http://127.0.0.1:{runner.addresses[0][1]}", transports=["websocket"]
        )
        client.on("connect", mark_it)
        await work_twice(send)
    await work_twice(send)
    await client.disconnect()
    await runner.cleanup()
run(main)
"""

TORNADO_PING = """
from tornado.httpserver import HTTPServer
from tornado.testing import bind_unused_port
from tornado.web import Application
from tornado.websocket import WebSocketHandler, websocket_connect

async def main():
    socket, port = bind_unused_port()
    server = HTTPServer(Application([("/", WebSocketHandler)]))
    server.add_socket(socket)
    with request("first"):
        client = await websocket_connect(f"ws://127.0.0.1:{port}/", ping_interval=0.01)
        ping = client.protocol.write_ping
        def pinged(data):
            mark()
            return ping(data)
        client.protocol.write_ping = pinged
        await until_marked()
    await until_marked()
    client.close()
    server.stop()
run(main)
"""

LANGSMITH = """
from langsmith.prompt_cache import AsyncPromptCache

async def main():
    cache = AsyncPromptCache(ttl_seconds=0.001, refresh_interval_seconds=0.01)
    async def refresh():
        mark()
        return "prompt"
    with request("first"):
        await cache.aset("key", "prompt", refresh)
        await until_marked()
    with request("another"):
        await cache.aset("other", "prompt", refresh)
        await until_marked()
    await until_marked()
    await cache.stop()
run(main)
"""

PYMONGO = """
import socket
from pymongo import AsyncMongoClient
from pymongo.monitoring import ServerHeartbeatListener

class Listener(ServerHeartbeatListener):
    def started(self, event):
        mark()
    def succeeded(self, event): ...
    def failed(self, event): ...

async def main():
    with socket.socket() as unanswered:
        unanswered.bind(("127.0.0.1", 0))
        with request("first"):
            client = AsyncMongoClient(
                "127.0.0.1", unanswered.getsockname()[1],
                event_listeners=[Listener()], heartbeatFrequencyMS=500,
            )
            await client.aconnect()
            await until_marked()
        await until_marked()
        await client.close()
run(main)
"""

PYMODBUS = """
from pymodbus.client import AsyncModbusTcpClient

async def main():
    clients = []
    async def handle(reader, writer):
        clients.append(writer)
        await reader.read()
        writer.close()
    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    async def send():
        while not clients:
            await asyncio.sleep(0)
        clients.pop().close()
    connected = asyncio.Event()
    with request("first"):
        client = AsyncModbusTcpClient(
            "127.0.0.1", port=server.sockets[0].getsockname()[1], reconnect_delay=0.05,
            trace_connect=lambda on: on and connected.is_set() and mark(),
        )
        await client.connect()
        connected.set()
        await work_twice(send)
    await work_twice(send)
    client.close()
    server.close()
run(main)
"""

BULLMQ = """
from bullmq import Queue, Worker

async def main():
    options = {"connection": f"redis://127.0.0.1:{PORT}"}
    queue = Queue("jobs", options)
    async def send():
        await queue.add("job", {})
    with request("first"):
        worker = Worker("jobs", mark_it, options)
        await work_twice(send)
    await work_twice(send)
    await worker.close()
    await queue.close()
run(main)
"""

TELEGRAM = """
from aiohttp import web

async def serve(waiting):
    async def answer(given):
        method = given.match_info["method"].lower()
        result = True
        if method == "getme":
            result = {"id": 1, "is_bot": True, "first_name": "bot", "username": "bot"}
        elif method == "getupdates":
            await asyncio.sleep(0.01)
            result = [waiting.pop()] if waiting else []
        return web.json_response({"ok": True, "result": result})
    application = web.Application()
    application.router.add_route("*", "/bot1:token/{method}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner

async def main():
    waiting, numbers = [], iter(range(1, 100))
    runner = await serve(waiting)
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    async def send():
        number = next(numbers)
        message = {
            "message_id": number, "date": 0, "text": "message",
            "chat": {"id": 1, "type": "private"},
            "from": {"id": 2, "is_bot": False, "first_name": "user"},
        }
        waiting.append({"update_id": number, "message": message})
    POLL
    await runner.cleanup()
run(main)
"""

AIOGRAM = """
    from aiogram import Bot, Dispatcher
    from aiogram.client.session.aiohttp import AiohttpSession
    from aiogram.client.telegram import TelegramAPIServer
    dispatcher = Dispatcher()
    async def handle(message):
        mark()
    dispatcher.message.register(handle)
    bot = Bot("1:token", session=AiohttpSession(api=TelegramAPIServer.from_base(url)))
    with request("first"):
        task = asyncio.create_task(dispatcher.start_polling(bot, handle_signals=False))
        await work_twice(send)
    await work_twice(send)
    await dispatcher.stop_polling()
    await task
"""

PYTHON_TELEGRAM_BOT = """
    from telegram.ext import ApplicationBuilder, MessageHandler, filters
    bot = ApplicationBuilder().token("1:token").base_url(url + "/bot").build()
    bot.add_handler(MessageHandler(filters.ALL, mark_it))
    with request("first"):
        await bot.initialize()
        await bot.start()
        await bot.updater.start_polling()
        await work_twice(send)
    await work_twice(send)
    await bot.updater.stop()
    await bot.stop()
    await bot.shutdown()
"""

SLACK = """
from aiohttp import web
from slack_sdk.socket_mode.CLIENT import SocketModeClient
from slack_sdk.web.async_client import AsyncWebClient

async def main():
    sockets = []
    async def open_connection(given):
        return web.json_response({"ok": True, "url": f"ws://127.0.0.1:{port}/socket"})
    async def connect(given):
        socket = web.WebSocketResponse()
        await socket.prepare(given)
        sockets.append(socket)
        await socket.send_json({"type": "hello"})
        async for _ in socket:
            pass
        return socket
    application = web.Application()
    application.router.add_post("/apps.connections.open", open_connection)
    application.router.add_get("/socket", connect)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    async def send():
        await sockets[-1].send_json({"type": "events_api", "envelope_id": "1", "payload": {}})
    with request("first"):
        web_client = AsyncWebClient(base_url=f"http://127.0.0.1:{port}/")
        client = SocketModeClient("xapp-token", web_client=web_client)
        client.socket_mode_request_listeners.append(mark_it)
        await client.connect()
        await work_twice(send)
    await work_twice(send)
    await client.close()
    await runner.cleanup()
run(main)
"""

PROGRAMS = {
    "psycopg-pool": ("psycopg_pool", "postgres", PSYCOPG_POOL),
    "procrastinate": ("procrastinate", "postgres", PROCRASTINATE),
    "nats, a stream": ("nats", "nats", NATS_STREAM),
    "socketio, reconnecting": ("socketio", None, SOCKETIO_RECONNECT),
    "tornado, websocket": ("tornado.websocket", None, TORNADO_PING),
    "langsmith": ("langsmith.prompt_cache", None, LANGSMITH),
    "pymongo": ("pymongo", None, PYMONGO),
    "pymodbus": ("pymodbus.client", None, PYMODBUS),
    "bullmq": ("bullmq", "redis", BULLMQ),
    "aiogram": ("aiogram", None, TELEGRAM.replace("    POLL\n", AIOGRAM)),
    "python-telegram-bot": (
        "telegram.ext",
        None,
        TELEGRAM.replace("    POLL\n", PYTHON_TELEGRAM_BOT),
    ),
    "slack_sdk, aiohttp": (
        "slack_sdk.socket_mode.aiohttp",
        None,
        SLACK.replace("CLIENT", "aiohttp"),
    ),
    "slack_sdk, websockets": (
        "slack_sdk.socket_mode.websockets",
        None,
        SLACK.replace("CLIENT", "websockets"),
    ),
}
"""By name: the module, the server that it needs, and the program."""
