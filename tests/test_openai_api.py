"""The images endpoints, asked by OpenAI's own Python client."""

import base64
import io
import urllib.request

import openai
import pytest
from PIL import Image
from served import LONG, serving
from tiny import tiny_folder

from reverie.png import read_recipe

KEY = "s3cret"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, tiny_folder(folder / "model"), "--key", KEY) as served:
        served.model = str(folder / "model")
        yield served


@pytest.fixture(scope="module")
def client(served):
    return openai.OpenAI(base_url=f"{served.address}/v1", api_key=KEY, max_retries=0)


def picture(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_models(client, served):
    assert [model.id for model in client.models.list()] == [served.model]
    assert client.models.retrieve(served.model).owned_by == "reverie"


def test_pictures_as_base64_in_the_size_that_was_asked_for(client, tmp_path):
    answer = client.images.generate(prompt="a cat", n=2, size="64x64", user="someone", extra_body={"seed": 7})
    assert len(answer.data) == 2
    assert (answer.size, answer.output_format) == ("64x64", "png")
    for seed, one in enumerate(answer.data, 7):
        path = tmp_path / f"{seed}.png"
        path.write_bytes(base64.b64decode(one.b64_json))
        assert picture(path.read_bytes()).size == (64, 64)
        assert read_recipe(path)["seed"] == seed
    jpeg = client.images.generate(prompt="a cat", output_format="jpeg", output_compression=50).data[0]
    assert picture(base64.b64decode(jpeg.b64_json)).format == "JPEG"


def test_a_url_can_be_fetched_without_the_key_but_not_changed(client, served):
    answer = client.images.generate(prompt="a cat", response_format="url", extra_body={"seed": 7}).data[0]
    with urllib.request.urlopen(answer.url) as got:
        assert picture(got.read()).size == (32, 32)
    path = answer.url.removeprefix(served.address)
    assert served.ask("GET", path.split("?")[0])[0] == 401
    assert served.ask("GET", path.replace("until=", "until=1"))[0] == 401
    assert served.ask("GET", path.replace(".png", "-1.png"))[0] == 401


def test_plans_go_in_extra_body_and_the_rewritten_prompt_comes_back(client, served):
    extra = {"preset": "t2i-r1", "thought_tokens": 8, "seed": 3}
    raw = client.images.with_raw_response.generate(prompt="a cat", extra_body=extra)
    about = served.ask("GET", f"/api/runs/{raw.headers['x-reverie-run']}", headers={"X-API-Key": KEY})[1]
    assert about["request"]["plan"]["think"] == "before"
    assert raw.parse().data[0].revised_prompt == about["recipes"][0]["rewritten"]


def test_edits(client, served, tmp_path):
    Image.new("RGB", (32, 32), "red").save(tmp_path / "red.png")
    with (tmp_path / "red.png").open("rb") as file:
        raw = client.images.with_raw_response.edit(
            image=file, prompt="blue", n=2, extra_body={"seed": 3, "guidance": 2.0}
        )
    assert len(raw.parse().data) == 2
    about = served.ask("GET", f"/api/runs/{raw.headers['x-reverie-run']}", headers={"X-API-Key": KEY})[1]
    assert (about["kind"], about["seed"], about["request"]["plan"]["guidance"]) == ("edit", 3, 2.0)
    with (tmp_path / "red.png").open("rb") as file, pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=file, mask=(tmp_path / "red.png").read_bytes(), prompt="blue")
    assert caught.value.param == "mask"


def test_streaming(client):
    events = list(client.images.generate(prompt="a cat", stream=True, partial_images=2))
    kinds = [event.type.removeprefix("image_generation.") for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    pictures = [picture(base64.b64decode(event.b64_json)).convert("RGB").tobytes() for event in events]
    assert len(set(pictures)) == 3


REFUSED = [
    ({"prompt": ""}, openai.BadRequestError, None),
    ({"prompt": "a cat", "n": 99}, openai.BadRequestError, None),
    ({"prompt": "a cat", "size": "1536x1024"}, openai.BadRequestError, "invalid_value"),
    ({"prompt": "a cat", "background": "transparent"}, openai.BadRequestError, "invalid_value"),
    ({"prompt": "a cat", "model": "gpt-image-2"}, openai.NotFoundError, "model_not_found"),
    ({"prompt": "a cat", "extra_body": {"wonders": 1}}, openai.BadRequestError, "unknown_parameter"),
    ({"prompt": "a cat", "extra_body": {"preset": "nonesuch"}}, openai.BadRequestError, None),
]


@pytest.mark.parametrize(("options", "kind", "code"), REFUSED, ids=[str(o)[:60] for o, _, _ in REFUSED])
def test_errors_have_the_shape_of_openai(client, options, kind, code):
    with pytest.raises(kind) as caught:
        client.images.generate(**options)
    assert caught.value.type == "invalid_request_error"
    assert caught.value.code == code
    assert caught.value.body["message"]


def test_a_wrong_key(served):
    for key in ("wrong", KEY + "x", KEY[:-1]):
        with pytest.raises(openai.AuthenticationError) as caught:
            openai.OpenAI(base_url=f"{served.address}/v1", api_key=key, max_retries=0).models.list()
        assert caught.value.code == "invalid_api_key"
    assert served.ask("POST", "/api/runs", {"prompt": "a cat"})[0] == 401
    assert served.ask("GET", "/metrics")[0] == 401
    assert served.ask("GET", "/healthz")[0] == 200
    assert served.ask("POST", "/api/login", {"key": "wrong"})[0] == 401


def test_a_browser_logs_in_once(served):
    request = urllib.request.Request(f"{served.address}/api/login", b'{"key": "s3cret"}', method="POST")
    with urllib.request.urlopen(request) as answer:
        cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert KEY not in cookie
    assert served.ask("GET", "/api/runs", headers={"Cookie": cookie.split(";")[0]})[0] == 200
    assert served.ask("GET", "/api/runs", headers={"Cookie": "reverie_key=x"})[0] == 401


def test_a_client_that_goes_away_is_not_painted_for(served):
    with pytest.raises(openai.APITimeoutError):
        openai.OpenAI(base_url=f"{served.address}/v1", api_key=KEY, max_retries=0, timeout=1).images.generate(
            prompt="gone", extra_body={name: value for name, value in LONG.items() if name != "prompt"}
        )
    listed = served.ask("GET", "/api/runs?query=gone", headers={"X-API-Key": KEY})[1]["runs"]
    about = served.wait(listed[0]["id"], headers={"X-API-Key": KEY})
    assert about["state"] == "cancelled"
    assert "Traceback" not in served.log.read_text()
