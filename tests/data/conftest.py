"""A local server that hands out small archives in MNIST's and CIFAR-10's formats, whole or damaged."""

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from xnornet.data import sources


class Server:
    """Files by name, how each request went, and what goes wrong.

    A fault is a function of the body to send, to (status, bytes sent) or to all that is sent, header included.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Any] = []  # one is used up by each request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                name = self.path.rsplit("/", 1)[-1]
                outer.requests.append(name)
                body = outer.files.get(name)
                if body is None:
                    self.send_error(404)
                    return
                fault = outer.faults.pop(0)(body) if outer.faults else (200, body)
                if isinstance(fault, bytes):
                    self.wfile.write(fault)
                    self.close_connection = True
                    return
                status, sent = fault
                if status != 200:
                    self.send_error(status)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if sent is None:  # stall
                    stop.wait(20)
                else:
                    self.wfile.write(sent)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        stop = self.stop = threading.Event()
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.stop.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, full, with torchvision and our own checks told of its addresses and checksums."""
    it = Server()
    monkeypatch.delenv(sources.FOLDER_VARIABLE, raising=False)
    monkeypatch.setattr(sources, "PAUSE_SECONDS", 0.01)
    _fill_mnist(it, monkeypatch)
    _fill_cifar10(it, monkeypatch)
    yield it
    it.close()


def _idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return header + array.tobytes()


def _fill_mnist(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    plain = {}
    for part, count in (("train", 40), ("t10k", 20)):
        plain[f"{part}-images-idx3-ubyte"] = _idx(rng.integers(0, 256, (count, 28, 28), np.uint8))
        plain[f"{part}-labels-idx1-ubyte"] = _idx((np.arange(count) % 10).astype(np.uint8))
    server.files |= {f"{name}.gz": gzip.compress(body) for name, body in plain.items()}
    monkeypatch.setattr(sources, "MNIST_MD5", {name: hashlib.md5(body).hexdigest() for name, body in plain.items()})
    monkeypatch.setattr(datasets.MNIST, "mirrors", [server.url])
    resources = [(f"{name}.gz", hashlib.md5(server.files[f"{name}.gz"]).hexdigest()) for name in plain]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)


def _fill_cifar10(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    batches = {}
    for name in [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]:
        pixels = rng.integers(0, 256, (20, 3072), np.uint8)
        batches[name] = pickle.dumps({"data": pixels, "labels": [i % 10 for i in range(20)]})
    meta = pickle.dumps({"label_names": list(sources.CIFAR10_CLASSES)})
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, body in [*batches.items(), ("batches.meta", meta)]:
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    server.files["cifar-10-python.tar.gz"] = archive.getvalue()
    md5 = {name: hashlib.md5(body).hexdigest() for name, body in batches.items()}
    cifar = datasets.CIFAR10
    monkeypatch.setattr(cifar, "url", server.url + "cifar-10-python.tar.gz")
    monkeypatch.setattr(cifar, "tgz_md5", hashlib.md5(archive.getvalue()).hexdigest())
    monkeypatch.setattr(cifar, "train_list", [[name, md5[name]] for name in batches if name != "test_batch"])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", md5["test_batch"]]])
    monkeypatch.setattr(cifar, "meta", cifar.meta | {"md5": hashlib.md5(meta).hexdigest()})
