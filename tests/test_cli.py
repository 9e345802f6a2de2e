"""The command line, end to end on a tiny random Janus."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tiny import tiny_folder

import reverie
from reverie.cli import main
from reverie.events import Finished, Thought, read_trace
from reverie.png import open_picture, picture_hash, read_recipe, save_png

COMMAND = [sys.executable, "-m", "reverie"]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(Path(reverie.__file__).parent.parent)}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """An empty current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command."""
    try:
        code = main(list(arguments))
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


# --- Painting.


def test_generate_prints_the_name_of_a_picture_with_its_recipe(capsys, here, tiny):
    code, out, err = call(capsys, "generate", "Three blue cats, at night!", "--model", tiny, "--seed", "7")
    assert code == 0
    assert out == "three-blue-cats-at-night.png\n"
    assert "painted in" in err
    assert "MiB in float32 or " in err
    assert os.listdir(here) == ["three-blue-cats-at-night.png"]
    recipe = read_recipe(out.strip())
    assert (recipe["seed"], recipe["prompt"], recipe["model"]) == (7, "Three blue cats, at night!", tiny)
    assert recipe["plan"]["think"] == "never"
    assert recipe["versions"]["reverie"] == reverie.__version__
    assert recipe["versions"]["torch"] == torch.__version__
    assert len(recipe["fingerprint"]) == 16
    assert recipe["picture"] == picture_hash(open_picture(out.strip()))


def test_names_of_files(capsys, here, tiny):
    options = ["--model", tiny, "-q", "--seed", "1"]
    assert call(capsys, "generate", "a cat", *options)[1] == "a-cat.png\n"
    assert call(capsys, "generate", "a cat", *options)[1] == "a-cat-2.png\n"
    assert call(capsys, "generate", "a cat", *options, "-n", "2")[1].split() == ["a-cat-2-1.png", "a-cat-2-2.png"]
    assert call(capsys, "generate", "a cat", *options, "--out", "x.png", "-n", "2")[1].split() == ["x-1.png", "x-2.png"]
    assert call(capsys, "generate", "a cat", *options, "--out", "new/folder")[1] == "new/folder/a-cat.png\n"
    assert call(capsys, "generate", "../..", *options, "--out", "new")[1] == "new/picture.png\n"
    assert call(capsys, "generate", "猫 и кот", *options, "--out", "new")[1] == "new/猫-и-кот.png\n"


def test_an_image_does_not_depend_on_its_batch_and_random_seeds_differ(capsys, here, tiny):
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "5", "-n", "3", "--out", "many.png")
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "6", "--out", "one.png")
    assert read_recipe("many-2.png")["picture"] == read_recipe("one.png")["picture"]
    assert read_recipe("many-2.png")["picture"] != read_recipe("many-1.png")["picture"]
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--out", "r1.png")
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--out", "r2.png")
    assert read_recipe("r1.png")["seed"] != read_recipe("r2.png")["seed"]


def test_size_is_for_display_only(capsys, here, tiny):
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "5", "--out", "small.png")
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "5", "--size", "100", "--out", "large.png")
    assert open_picture("small.png").size == (32, 32)
    assert open_picture("large.png").size == (100, 100)
    assert read_recipe("small.png") == read_recipe("large.png")


def test_guidance_and_temperature_reach_the_painter(capsys, here, tiny):
    options = ["generate", "a cat", "--model", tiny, "-q", "--seed", "5"]
    hashes = set()
    for number, more in enumerate(
        [(), ("--guidance", "1"), ("--guidance", "9"), ("--temperature", "0"), ("--temperature", "3")]
    ):
        assert call(capsys, *options, *more, "--out", f"{number}.png")[0] == 0
        hashes.add(read_recipe(f"{number}.png")["picture"])
    assert len(hashes) == 5


def test_json_prints_events_and_nothing_else(capsys, here, tiny):
    code, out, err = call(
        capsys, "generate", "a cat", "--model", tiny, "--think", "before", "--thought-tokens", "12", "--json", "-n", "2"
    )
    events = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert err == ""
    names = [event["event"] for event in events]
    assert names[0] == "started"
    assert names[-1] == "spent"
    assert names.count("finished") == 2
    assert "preview" in names
    thought = [event for event in events if event["event"] == "thought"][-1]
    assert thought["prompt"] == "a cat"
    assert "as it was typed" in thought["note"]
    files = [event["file"] for event in events if event["event"] == "finished"]
    assert files == ["a-cat-1.png", "a-cat-2.png"]
    assert all(Path(file).is_file() for file in files)


def test_a_trace_keeps_events_and_pictures(capsys, here, tiny):
    code, _, _ = call(
        capsys, "generate", "a cat", "--model", tiny, "-q", "--preset", "t2g", "--thought-tokens", "9", "--trace", "t"
    )
    events = list(read_trace("t"))
    assert code == 0
    assert any(isinstance(event, Thought) for event in events)
    (finished,) = [event for event in events if isinstance(event, Finished)]
    assert picture_hash(finished.picture) == read_recipe("a-cat.png")["picture"]
    code, _, err = call(capsys, "generate", "a cat", "--model", tiny, "--trace", "t", "--out", "b.png")
    assert code == 2
    assert "already holds a trace" in err
    assert not Path("b.png").exists()


# --- Painting again.


@pytest.mark.parametrize(
    "more", [(), ("--think", "before", "--thought-tokens", "20"), ("--guidance", "2", "--size", "77")]
)
def test_replay_is_identical(capsys, here, tiny, more):
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "-n", "2", *more, "--out", "a.png")
    code, out, _ = call(capsys, "replay", "a-2.png", "-q")
    assert (code, out) == (0, "identical\na-2-replay.png\n")
    assert open_picture("a-2-replay.png").tobytes() == open_picture("a-2.png").tobytes()


def test_replay_says_how_far_it_is(capsys, here, tiny, tmp_path):
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "5", "--out", "a.png")
    recipe = read_recipe("a.png")
    save_png(Image.new("RGB", (32, 32)), "black.png", recipe | {"picture": "0" * 64})
    code, out, _ = call(capsys, "replay", "black.png", "-q")
    assert code == 1
    assert out.startswith("different: ")
    assert "% of the pixels differ" in out
    other = shutil.copytree(tiny, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    save_file({name: tensor * 1.5 for name, tensor in tensors.items()}, other / "model.safetensors", {"format": "pt"})
    code, out, err = call(capsys, "replay", "a.png", "-q", "--model", str(other))
    assert code == 1
    assert out.startswith("different")
    assert "has other weights" in err


def test_replay_from_the_stored_thought(capsys, here, tiny):
    options = ["--model", tiny, "-q", "--seed", "5"]
    call(capsys, "generate", "a sheep", *options, "--out", "sheep.png")
    call(capsys, "generate", "wool", *options, "--think", "before", "--thought-tokens", "5", "--out", "wool.png")
    stored = read_recipe("wool.png") | {"rewritten": "a sheep", "picture": read_recipe("sheep.png")["picture"]}
    save_png(open_picture("sheep.png"), "edited.png", stored)
    assert call(capsys, "replay", "edited.png", "-q", "--from-thought")[:2] == (0, "identical\nedited-replay.png\n")
    assert call(capsys, "replay", "edited.png", "-q")[0] == 1
    code, _, err = call(capsys, "replay", "sheep.png", "--from-thought")
    assert code == 2
    assert "without a thought" in err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "7"}, "no proper 'seed'"),
        ({"seed": -7}, "out of range"),
        ({"plan": {"think": "often"}}, "must be one of never"),
        ({"plan": {"colour": 1}}, "'colour'"),
        ({"model": "gone"}, "--model says where"),
        ({"model": "somebody/something"}, "fetches it"),
        ({"prompt": " "}, "prompt is empty"),
    ],
)
def test_damaged_recipes_are_refused(capsys, here, tiny, changes, message):
    recipe = {"model": tiny, "seed": 1, "plan": {}, "prompt": "a cat"} | changes
    save_png(Image.new("RGB", (32, 32)), "a.png", recipe)
    code, out, err = call(capsys, "replay", "a.png", "-q")
    assert code == 2
    assert out == ""
    assert message in err
    assert os.listdir(here) == ["a.png"]


# --- Looking, listing, evaluating.


def test_describe(capsys, here, tiny):
    Image.new("RGB", (50, 30), "red").save("red.jpg")
    code, out, _ = call(capsys, "describe", "red.jpg", "--model", tiny, "--json")
    assert code == 0
    assert tiny in json.loads(out)
    assert call(capsys, "describe", "red.jpg", "--model", tiny, "--question", "What colour is it?")[0] == 0
    Path("text.png").write_text("no picture")
    code, _, err = call(capsys, "describe", "text.png", "--model", tiny)
    assert code == 2
    assert "cannot be read as a picture" in err


def test_models_lists_what_there_is(capsys):
    code, out, _ = call(capsys, "models")
    assert code == 0
    assert "atelier-janus" in out
    assert "deepseek-ai/Janus-Pro-7B" in out
    assert "13.8 GiB" in out
    rows = {row["name"]: row for row in json.loads(call(capsys, "models", "--json")[1])}
    assert rows["janus-pro-1b"]["memory"]["bfloat16"] == 2 * rows["janus-pro-1b"]["parameters"]
    assert rows["janus-pro-1b"]["packing"]["bfloat16"] > 2 * 1.2e9, "a second copy of the layers"
    assert rows["janus-pro-7b"]["packing"]["bfloat16"] < 0.2e9, "layers above the limit are not copied"
    assert "on a CPU" in out
    assert all(row["source"] and row["licence"] for row in rows.values())


def test_version(capsys):
    assert call(capsys, "version")[1] == f"reverie {reverie.__version__}\n"


# --- Python.


def test_the_same_in_python(capsys, here, tiny):
    call(capsys, "generate", "a cat", "--model", tiny, "-q", "--seed", "5", "--out", "a.png")
    painter = reverie.load(tiny)
    result = painter.generate("a cat", seed=5)
    assert picture_hash(result.image) == read_recipe("a.png")["picture"]
    assert result.recipes[0] == read_recipe("a.png")
    assert result.thought is None
    assert result.seeds == (5,)
    result = painter.generate("a cat", "t2g", seed=5, n=2, thought_tokens=8)
    assert len(result.images) == 2
    assert result.thought is not None
    assert result.rewritten == "a cat"
    *_, finished, spent = painter.stream("a cat", seed=5, pieces=2)
    assert finished.picture.tobytes() == painter.generate("a cat", seed=5).image.tobytes()
    assert spent.name == "spent"
    assert isinstance(painter.describe(result.image), str)
    painted = painter.paint(["a cat", "a dog", "a cat"], [5, 6, 7])
    assert picture_hash(painted[0].image) == read_recipe("a.png")["picture"]
    assert sum(one.work["decoded"] for one in painted) == 3 * 2 * 15
    with pytest.raises(ValueError, match="prompt is empty"):
        painter.stream("")


# --- Bad input: one sentence, exit code 2, nothing left behind.

BAD = {
    "empty prompt": (["generate", " \n"], "the prompt is empty"),
    "prompt that is no text": (["generate", "a \udcff"], "not valid Unicode"),
    "no prompt": (["generate"], "give a prompt, or a file of them with --prompts"),
    "unknown command": (["paint", "a cat"], "invalid choice"),
    "unknown option": (["generate", "a cat", "--colour", "red"], "unrecognized arguments"),
    "unknown model": (["generate", "a cat", "--model", "atelier-jnaus"], "did you mean atelier-janus?"),
    "no model at all": (["generate", "a cat", "--model", ""], "name of the model is empty"),
    "a model that does not paint": (["generate", "a cat", "--model", "atelier-inspector"], "does not paint"),
    "a folder without a model": (["generate", "a cat", "--model", "/"], "no config.json"),
    "a file as model": (["generate", "a cat", "--model", __file__], "is a file"),
    "negative seed": (["generate", "a cat", "--seed", "-1"], "seed=-1"),
    "huge seed": (["generate", "a cat", "--seed", str(2**63)], "seed="),
    "seed that is no number": (["generate", "a cat", "--seed", "x"], "--seed"),
    "no images": (["generate", "a cat", "-n", "0"], "n=0"),
    "too many images": (["generate", "a cat", "-n", "100000"], "n=100000"),
    "no size": (["generate", "a cat", "--size", "0"], "size=0"),
    "huge size": (["generate", "a cat", "--size", "100000"], "size=100000"),
    "other format": (["generate", "a cat", "--out", "cat.jpg"], "written as PNG"),
    "file as folder": (["generate", "a cat", "--out", "/dev/null/cat.png"], "cannot write"),
    "folder that cannot be written": (["generate", "a cat", "--out", "/proc/cat.png"], "cannot write"),
    "trace that cannot be written": (["generate", "a cat", "--trace", "/proc/trace"], "cannot write"),
    "long prompt": (["generate", "a cat " * 200], "tokens, but"),
    "thinking often": (["generate", "a cat", "--think", "often"], "must be one of never"),
    "regions": (["generate", "a cat", "--preset", "twig", "--regions", "99"], "between 1 and 64"),
    "rows": (["generate", "a cat", "--preset", "twig", "--regions", "20"], "4 rows"),
    "schedule": (["generate", "a cat", "--preset", "twig", "--schedule", "1:x"], "heights from the top such as 2:1:1"),
    "official": (["generate", "a cat", "--preset", "twig", "--official", "--regions", "4"], "at most 3 regions"),
    "thinking after": (["generate", "a cat", "--think", "after"], "how many rounds"),
    "choosing": (["generate", "a cat", "--choose", "best"], "must be one of first, orm, prm, parm"),
    "a judge without work": (["generate", "a cat", "--judge", "atelier-inspector"], "nothing to judge"),
    "unknown judge": (["generate", "a cat", "--choose", "orm", "--judge", "atelier-inspecter"], "did you mean"),
    "a judge that cannot read": (
        ["generate", "a xylophonist", "--choose", "orm", "--judge", "atelier-inspector"],
        "Atelier's language",
    ),
    "candidates": (["generate", "a cat", "--candidates", "4"], "candidates=4"),
    "reflection": (["generate", "a cat", "--reflect", "-1"], "reflect=-1"),
    "a judge of nothing": (
        ["generate", "a cat", "--think", "during", "--judge", "atelier-inspector"],
        "nothing to judge",
    ),
    "a judge of the script": (
        ["generate", "a cat", "--preset", "twig", "--official", "--judge", "atelier-inspector"],
        "criticises itself",
    ),
    "choosing among thoughts": (["generate", "a cat", "--preset", "twig", "--choose", "orm"], "leave choose=first"),
    "unknown preset": (["generate", "a cat", "--preset", "t2gg"], "did you mean t2g?"),
    "guidance": (["generate", "a cat", "--guidance", "nan"], "guidance=nan"),
    "temperature": (["generate", "a cat", "--temperature", "-1"], "temperature=-1.0"),
    "device": (["generate", "a cat", "--device", "tpu"], "device='tpu'"),
    "absent device": (["generate", "a cat", "--device", "cuda:99"], "not on this machine"),
    "dtype": (["generate", "a cat", "--dtype", "float7"], "dtype='float7'"),
    "no file to replay": (["replay", "none.png"], "no file none.png"),
    "no file to describe": (["describe", "none.png"], "no file none.png"),
    "unknown benchmark": (["evaluate", "atelier-genevl", "--out", "runs"], "atelier-geneval"),
    "no recipe to train": (["train", "none.yaml"], "no recipe none.yaml"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(capsys, here, tiny, case):
    arguments, message = BAD[case]
    if arguments[0] in ("generate", "evaluate") and "--model" not in arguments:
        arguments = [*arguments, "--model", tiny]
    code, out, err = call(capsys, *arguments, *(["-q"] if arguments[0] == "generate" else []))
    assert code == 2
    assert out == ""
    assert message in err
    assert err.startswith("reverie: ")
    assert err.count("\n") == 1
    assert os.listdir(here) == []


def test_bad_input_is_refused_before_torch_is_loaded(here, tiny):
    script = "import sys; from reverie.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    for name in (
        "empty prompt",
        "unknown model",
        "negative seed",
        "no size",
        "file as folder",
        "long prompt",
        "device",
        "unknown judge",
        "a judge that cannot read",
    ):
        arguments = BAD[name][0] + ([] if "--model" in BAD[name][0] else ["--model", tiny])
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], env=ENVIRONMENT, capture_output=True, text=True
        )
        assert done.stdout == "2 False\n", (name, done)


def test_broken_checkpoints_are_one_sentence(capsys, here, tiny, tmp_path):
    def broken(name: str, change) -> str:
        folder = shutil.copytree(tiny, tmp_path / name)
        change(folder)
        return str(folder)

    def lose(folder):
        tensors = load_file(folder / "model.safetensors")
        tensors.pop("gen_embed.weight")
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})

    def bend(folder):
        tensors = load_file(folder / "model.safetensors")
        save_file(tensors | {"gen_embed.weight": torch.zeros(3, 3)}, folder / "model.safetensors", {"format": "pt"})

    def poison(folder):
        (folder / "model.safetensors").unlink()
        torch.save({"gen_embed.weight": Path("x")}, folder / "pytorch_model.bin")

    cases = {
        "lacks the tensor gen_embed.weight": lose,
        "does not fit config.json": bend,
        "could run code": poison,
        "no weights": lambda folder: (folder / "model.safetensors").unlink(),
        "not a valid configuration": lambda folder: (folder / "config.json").write_text("{"),
        "model_type": lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
        "no tokenizer.json": lambda folder: (folder / "tokenizer.json").unlink(),
        "is damaged": lambda folder: os.truncate(folder / "model.safetensors", 5000),
    }
    for number, (message, change) in enumerate(cases.items()):
        code, out, err = call(capsys, "generate", "a cat", "-q", "--model", broken(str(number), change))
        assert (code, out, err.count("\n")) == (2, "", 1), message
        assert message in err
    assert os.listdir(here) == []


# --- The process itself.


def test_help_is_quick_and_loads_nothing():
    started = time.perf_counter()
    done = subprocess.run([*COMMAND, "--help"], env=ENVIRONMENT, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    print(f"reverie --help: {seconds:.2f} s")
    assert done.returncode == 0
    assert "generate" in done.stdout
    assert seconds < 1.5  # 0.1 s on an idle machine; the bound leaves room for a busy one


def test_importing_reverie_imports_nothing_heavy():
    script = (
        "import sys, reverie, reverie.cli, reverie.reason, reverie.events, reverie.png, reverie.models.registry\n"
        "print([name for name in ('torch', 'transformers', 'numpy', 'PIL', 'rich', 'yaml') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done


def test_a_picture_needs_neither_transformers_nor_the_compiler_of_torch(here, tiny):
    """Each takes longer to import than a picture takes to paint."""
    script = (
        "import sys, reverie.cli\n"
        f"reverie.cli.main(['generate', 'a cat', '--model', {str(tiny)!r}, '--think', 'before', '-q'])\n"
        "heavy = ('transformers', 'accelerate', 'huggingface_hub', 'torch._dynamo', 'torch._inductor', 'sympy')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.stdout.endswith(".png\n[]\n"), done


@pytest.mark.parametrize("think", ["never", "before"])
def test_ctrl_c_leaves_only_whole_pictures(here, tiny, think):
    options = ["--think", think, "--thought-tokens", "400" if think == "before" else "1"]
    command = [*COMMAND, "generate", "a cat", "--model", tiny, "--json", "-n", "2000", *options]

    def heed_interrupts() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored, if the tests run in a shell's background

    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    ) as process:
        awaited = "finished" if think == "never" else "thought"
        for line in process.stdout:
            if json.loads(line)["event"] == awaited:
                break
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "reverie: stopped.\n"
    assert all(read_recipe(path)["prompt"] == "a cat" for path in here.iterdir())
    assert [path for path in here.iterdir() if path.suffix != ".png"] == []
