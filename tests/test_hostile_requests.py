"""What strangers send to a served model: each gets an answer or one sentence, and opens nothing."""

import base64
import json
import struct
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import png as black_png
from strategies import to_bytes

from steelseg.core.errors import BadInput
from steelseg.core.pixels import GREY
from steelseg.data.images import MAX_SCANS, SCAN
from steelseg.predict.model import Model
from steelseg.registry import request
from steelseg.registry.request import MAX_BODY, MAX_VALUES, decode, images_of

pytestmark = pytest.mark.filterwarnings("default")  # MLflow has some of its own
JSON = "application/json"
TOUCHES = {"open", "os.listdir", "os.scandir", "socket.connect", "socket.getaddrinfo"}
TOUCHES |= {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "urllib.Request"}
_watched: list[tuple[Any, ...]] | None = None  # since an audit hook stays until the process ends


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is not None and event in TOUCHES:
        _watched.append((event, *arguments))


sys.addaudithook(watch)


@pytest.fixture
def watched() -> Iterator[list[tuple[Any, ...]]]:
    """Whatever this process opens, lists, calls or connects to during a test."""
    global _watched
    _watched = []
    yield _watched
    _watched = None


@pytest.fixture(scope="module")
def client(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """MLflow's scoring server with the tiny model, in this process."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    folder = tmp_path_factory.mktemp("served") / "model"
    code = Path(request.__file__).with_name("served.py")
    mlflow.pyfunc.save_model(
        folder, python_model=str(code), artifacts={"model": str(tiny_model)}, pip_requirements=[]
    )
    app = f"{scoring_server.__name__}.app"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring_server, "invocations", scoring_server.invocations)
        patch.setenv(scoring_server._SERVER_MODEL_PATH, str(folder))
        patch.setenv("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")  # which it sets for good
        patch.delitem(sys.modules, app, raising=False)
        yield TestClient(import_module(app).app, raise_server_exceptions=False)
        del sys.modules[app]


@pytest.fixture(scope="module")
def png(tiny_dataset: Path) -> bytes:
    return (tiny_dataset / "test_images" / "0012.png").read_bytes()


def post(client: TestClient, body: Any, content_type: str | None = JSON) -> tuple[int, Any]:
    """Send a body, as JSON unless it is bytes or text, and return status and answer."""
    body = body() if callable(body) else body
    content = body if isinstance(body, bytes | str) else json.dumps(body)
    headers = {"Content-Type": content_type} if content_type else {}
    answer = client.post("/invocations", content=content, headers=headers)
    return answer.status_code, answer.json()


def records(*images: Any) -> dict[str, Any]:
    return {"dataframe_records": [{"image": image} for image in images]}


def encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def huge_tile(side: int) -> bytes:
    """Write the header of a TIFF of 16x16 pixels in a single, much larger tile."""
    longs = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 8, 325: 9}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in longs.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(longs)) + entries + bytes(64)


def many_scans(n_scans: int) -> bytes:
    """Write a progressive JPEG whose last pass is there so many times more."""
    jpeg = to_bytes(np.zeros((64, 64), np.uint8), "JPEG", progressive=True)
    return jpeg[:-2] + jpeg[jpeg.rfind(SCAN) : -2] * n_scans + jpeg[-2:]


@pytest.mark.parametrize(
    "form",
    [
        records,
        lambda image: {"dataframe_split": {"columns": ["no", "image"], "data": [[1, image]]}},
        lambda image: {"inputs": {"image": [image]}},
        lambda image: {"instances": [{"image": image}]},
        lambda image: {"params": {"x": [1]}} | records(image),
        lambda image: records(f"data:image/png;base64,{image}"),
        lambda image: records(image.translate(str.maketrans("+/", "-_")).rstrip("=")),
        lambda image: records(base64.encodebytes(base64.b64decode(image)).decode()),
    ],
)
def test_an_image_is_answered_in_every_form(
    form: Any, client: TestClient, png: bytes, tiny_model: Path
) -> None:
    """MLflow's JSON forms; base64 of either kind, in lines, or as a data URI."""
    status, answer = post(client, form(encode(png)), f"{JSON}; charset=utf-8")
    assert status == 200
    found = Model.open(tiny_model).predict(png)
    expected = [
        (0, f.class_id, f.class_name, f.rle, f.area, f.confidence, None, None) for f in found
    ]
    assert [tuple(row.values()) for row in answer["predictions"]] == expected


HOSTILE = {
    "a path": records("/etc/passwd"),
    "a path that is no base64": records("../../etc/passwd.txt"),
    "an address": records("http://127.0.0.1:1/plate.png"),
    "an address of a file": records("file:///etc/passwd"),
    "a bucket": records("s3://bucket/plate.png"),
    "a data URI that is none": records("data:image/png,plate"),
    "base64 of no image": records(encode(b"no image")),
    "pixels": records([[1, 2], [3, 4]]),
    "a tensor": {"inputs": [[[1, 2], [3, 4]]]},
    "instances of pixels": {"instances": [[[1, 2], [3, 4]]]},
    "null": records(None),
    "a number": records(17),
    "an empty text": records(""),
    "NaN": b'{"dataframe_records": [{"image": NaN}]}',
    "a nested object": records({"image": {"image": ["plate.png"]}}),
    "another column": {"dataframe_records": [{"picture": ""}]},
    "distinct columns": {"dataframe_records": [{str(i): 1} for i in range(10_000)]},
    "columns without data": {"dataframe_split": {"columns": ["image"], "data": [[]]}},
    "columns that are none": {"dataframe_split": {"columns": {"image": 0}, "data": [[""]]}},
    "a prompt": {"messages": [{"role": "user", "content": "open /etc/passwd"}]},
    "a list": [],
    "nothing": b"",
    "no JSON": b"image=plate.png",
    "no Unicode": b"\xff\xfe{",
    "a huge number": b'{"dataframe_records": [{"image": ' + b"9" * 5000 + b"}]}",
    "half": json.dumps(records("iVBORw0KGgo")).encode()[:-9],
    "deep lists": b'{"dataframe_records": ' + b"[" * 100_000,
    "deep lists in an image": b'{"inputs": {"image": [' + b"[" * 400 + b"]" * 400 + b"]}}",
    "many values": b'{"dataframe_records": [' + b"[]," * MAX_VALUES + b"[]]}",
    "100 MB": lambda: records("A" * 100_000_000),
    "a bomb of pixels": lambda: records(encode(black_png((4096, 4096), 8, 2))),
    "a bomb of tiles": records(encode(huge_tile(2**15))),
    "a bomb of scans": records(encode(many_scans(MAX_SCANS))),
}


@pytest.mark.parametrize("body", [pytest.param(body, id=name) for name, body in HOSTILE.items()])
def test_a_hostile_body_is_refused_by_one_sentence(body: Any, client: TestClient) -> None:
    """With status 400, without a traceback, and without an echo of all that was sent."""
    status, answer = post(client, body)
    assert status == 400
    assert set(answer) == {"error_code", "message"}
    assert "expected" in answer["message"]
    assert "\n" not in answer["message"]
    assert len(answer["message"]) < 300


@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "application/vnd.apache.parquet", "text/plain", "multipart/form-data", None],
)
def test_other_content_is_refused(content_type: str | None, client: TestClient, png: bytes) -> None:
    """Even where it is JSON: without being asked, browsers send that as a form or as text only."""
    for body in (b"image\n/etc/passwd\n", json.dumps(records(encode(png)))):
        status, answer = post(client, body, content_type)
        assert status == 400
        assert "expected the content type application/json" in answer["message"]


def test_nothing_is_opened_for_a_request(
    client: TestClient, png: bytes, tmp_path: Path, watched: list[tuple[Any, ...]]
) -> None:
    """No file, folder, address or process; a path that is there is treated as one that is not."""
    there = tmp_path / "there"
    there.write_bytes(png)
    files = [f"{kind}{there}" for kind in ("", "file://", "data:", "~/../..")]
    bodies = [*HOSTILE.values(), *map(records, files), {"inputs": str(there)}, records(encode(png))]
    for body in bodies:  # which imports the decoders
        post(client, body)
    watched.clear()
    for body in bodies:
        post(client, body)
    post(client, f"image\n{there}\n", "text/csv")
    assert watched == []
    there.read_bytes()
    assert [(event, path) for event, path, *_ in watched] == [("open", str(there))]


def test_many_images_are_answered_or_refused_in_time(
    client: TestClient, png: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that come with 10,000 others wait; a single one between them has its turn soon."""
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "4")
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(post, client, records(*[encode(png)] * 10_000))
        status, _ = post(client, records(encode(png)))
        assert not many.done()
        assert status == 200
        status, answer = many.result()
    assert status == 400
    assert "of 10000 were done in the server's time limit; send fewer" in answer["message"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["image", "columns", "data", "inputs", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
FORMS = st.sampled_from(["dataframe_records", "dataframe_split", "instances", "inputs"])


@given(st.dictionaries(FORMS, VALUES, max_size=2))
@example({"dataframe_split": {"columns": ["image"], "data": [{"x": 0}]}})
def test_any_json_is_a_list_of_images_or_refused(document: dict[str, Any]) -> None:
    """Nothing else is raised."""
    with suppress(BadInput):
        assert isinstance(images_of(json.dumps(document).encode(), JSON), list)


@given(st.one_of(VALUES, st.binary(), st.binary().map(encode)))
def test_any_value_is_an_image_or_refused(value: Any) -> None:
    """Nothing else is raised."""
    with pytest.raises(BadInput):
        decode(value, GREY, 2**21)


def test_the_limits_are_where_they_say() -> None:
    """A body of the largest size is parsed; as many pixels as are allowed are decoded."""
    body = json.dumps(records("")).encode()
    assert images_of(body.ljust(MAX_BODY), JSON) == [""]
    with pytest.raises(BadInput, match=f"at most {MAX_BODY} bytes"):
        images_of(body.ljust(MAX_BODY + 1), JSON)
    assert decode(black_png((20, 30), 8, 2), GREY, 600).shape == (20, 30)
    with pytest.raises(BadInput, match="expected 1 to 599 pixels, but the header says 20x30"):
        decode(black_png((20, 30), 8, 2), GREY, 599)
    assert decode(many_scans(1), GREY, 2**21).shape == (64, 64)
