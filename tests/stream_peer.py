# The asyncio side of test_stream_peers.sh; see stream_peer.c for the conversation.
#
#   stream_peer.py client PORT        talks to a weft server on the loopback
#   stream_peer.py server PROGRAM…    serves, runs the program with its port, ends as it ends
import asyncio
import sys

HOST = "127.0.0.1"


# --- a client of weft ---

async def lines(port, n):
    reader, writer = await asyncio.open_connection(HOST, port)
    for i in range(200):
        text = b"%d: line %d\n" % (n, i)
        writer.write(text)
        assert await reader.readline() == text
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


async def bytes_both_ways(port):
    data = bytes(i * 7 >> 3 & 255 for i in range(1500000)) * 2
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"ECHO %d\n" % len(data))
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    writer.write(b"one more\nand the last, without its end")
    writer.write_eof()
    assert await reader.readuntil(b"more\n") == b"one more\n"
    assert await reader.read() == b"and the last, without its end"
    writer.close()


async def sink(port):
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"SINK\n")
    for _ in range(2000):
        writer.write(bytes(3001))
        await writer.drain()
    writer.write_eof()
    assert await reader.readline() == b"6002000\n"
    assert await reader.read() == b""
    writer.close()


# Neither of these may bother the server.
async def leave(port):
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"ECHO 10000000\n" + bytes(5000000))
    await asyncio.sleep(0.05)
    writer.transport.abort()
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(bytes(1000000))  # a line that is longer than the limit
    assert await reader.read() == b""
    writer.close()


async def client(port):
    await asyncio.gather(*(lines(port, n) for n in range(20)))
    await bytes_both_ways(port)
    await sink(port)
    try:
        await leave(port)
    except ConnectionError:
        pass  # it closed with our bytes unread
    await lines(port, 0)
    _, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"QUIT\n")
    writer.write_eof()
    await writer.drain()
    writer.close()


# --- a server for weft ---

async def serve(reader, writer):
    try:
        while line := await reader.readline():
            if line.startswith(b"ECHO "):
                left = int(line[5:])
                while left > 0:
                    data = await reader.read(min(left, 10007))
                    left -= len(data)
                    writer.write(data)
                    await writer.drain()
            elif line == b"SINK\n":
                count = 0
                while data := await reader.read(50000):
                    count += len(data)
                    if count % 7 == 0:
                        await asyncio.sleep(0.001)
                writer.write(b"%d\n" % count)
            elif line == b"LEAVE\n":
                await reader.read(1000)
                writer.transport.abort()
                return
            else:
                writer.write(line)
    except ConnectionError:
        pass
    finally:
        writer.close()


async def server(program):
    listening = await asyncio.start_server(serve, HOST, 0)
    port = listening.sockets[0].getsockname()[1]
    process = await asyncio.create_subprocess_exec(*program, HOST, str(port))
    status = await process.wait()
    listening.close()
    return status


if sys.argv[1] == "client":
    asyncio.run(asyncio.wait_for(client(int(sys.argv[2])), 50))
else:
    sys.exit(asyncio.run(asyncio.wait_for(server(sys.argv[2:]), 50)))
