"""Python's side of test_tls_peers.sh: ssl over plain sockets, and asyncio.

    tls_peer.py client PORT AUTHORITY              one of each against weft's server
    tls_peer.py server KIND CERTIFICATE KEY        prints its port, sends one connection's lines back; KIND: ssl, asyncio
"""
import asyncio
import socket
import ssl
import sys

LINES = [b"hello\n", b"x" * 50000 + b"\n", b"good-bye\n"]


def client_context(authority):
    context = ssl.create_default_context(cafile=authority)
    context.set_alpn_protocols(["lines"])
    return context


def talk(port, context, session=None):
    with socket.create_connection(("127.0.0.1", port)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost", session=session) as connection:
            for line in LINES:
                connection.sendall(line)
                heard = b""
                while len(heard) < len(line):
                    piece = connection.recv(65536)
                    assert piece, "the end came early"
                    heard += piece
                assert heard == line
            assert connection.selected_alpn_protocol() == "lines"
            session, reused = connection.session, connection.session_reused
            connection.unwrap()  # the closing notice goes both ways
            return session, reused


def talk_with_ssl(port, authority):
    for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
        context = client_context(authority)
        context.maximum_version = version
        session, reused = talk(port, context)
        assert not reused
        _, reused = talk(port, context, session)
        assert reused, f"{version!r} was not resumed"


async def talk_with_asyncio(port, authority):
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=client_context(authority), server_hostname="localhost")
    for line in LINES:
        writer.write(line)
        await writer.drain()
        assert await reader.readexactly(len(line)) == line
    writer.close()
    await writer.wait_closed()


def server_context(certificate, key):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.set_alpn_protocols(["lines"])
    return context


def serve_with_ssl(context):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(listener.getsockname()[1], flush=True)
        plain, _ = listener.accept()
        with context.wrap_socket(plain, server_side=True) as connection:
            while piece := connection.recv(65536):
                connection.sendall(piece)
            connection.unwrap()


async def serve_with_asyncio(context):
    served = asyncio.Event()

    async def serve(reader, writer):
        while line := await reader.readline():
            writer.write(line)
            await writer.drain()
        writer.close()
        served.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    print(server.sockets[0].getsockname()[1], flush=True)
    await served.wait()
    server.close()


def main():
    if sys.argv[1] == "client":
        port, authority = int(sys.argv[2]), sys.argv[3]
        talk_with_ssl(port, authority)
        asyncio.run(talk_with_asyncio(port, authority))
    elif sys.argv[2] == "ssl":
        serve_with_ssl(server_context(*sys.argv[3:5]))
    else:
        asyncio.run(serve_with_asyncio(server_context(*sys.argv[3:5])))


main()
