"""What must not change a run: how the work is cut into micro-batches and processes, and being stopped on the way."""

import hashlib
import json
import os
import platform
import shutil
import signal
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from langptune_rs.data.store.tables import read_parquet
from langptune_rs.models.quiet import quiet
from langptune_rs.runs.folder import LOCK, WRITTEN

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


GOLDEN = Path(__file__).with_name("golden_losses.json")


def assert_same_weights(first, second) -> None:
    for model in ("policy", "embedder"):
        expected, actual = first.weights(model), second.weights(model)
        assert expected.keys() == actual.keys()
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=0, atol=0)


def assert_trained_alike(train, first, second, share: float = 1e-3) -> None:
    """The weights of each model agree to 1e-6 of their norm, and to this share of how far training has moved them."""
    distances = []
    for model in ("policy", "embedder"):
        initial, expected, actual = train.initial(model), first.weights(model), second.weights(model)
        assert expected.keys() == actual.keys()
        apart, moved, norm = (
            sum((expected[name] - other).double().square().sum().item() for name, other in others.items()) ** 0.5
            for others in (actual, {name: initial[name] for name in expected}, dict.fromkeys(expected, 0))
        )
        assert apart <= 1e-6 * norm
        assert apart <= share * moved
        distances.append(moved)
    assert max(distances) > 0.01


def test_a_run_is_complete(train):
    run = train()
    assert run.exit_code == 0, run.stderr
    names = {path.name for path in run.folder.iterdir()}
    assert {"config.toml", "metrics.jsonl", "results.json", "report.html", "policy", "embedder"} <= names
    assert {"per_user.parquet", "profiles.parquet", "checkpoints", "tensorboard"} <= names
    assert names <= {"config.toml", LOCK, *WRITTEN}
    assert len(run.losses) == 14
    assert min(run.losses) > 0
    assert [line["step"] for line in run.lines if line["phase"] != "validation"] == list(range(1, 15))


def test_both_models_learn_and_frozen_layers_do_not(train):
    from safetensors.torch import load_file

    run = train()
    config = (run.folder / "config.toml").read_text()
    for model, frozen in (("policy", ("model.layers.0.", "model.embed_tokens.")), ("embedder", ())):
        source = next(line for line in config.splitlines() if line.startswith("model = ") and f"tiny-{model}" in line)
        folder = run.folder.parent / source.rpartition("/")[2].strip('"')
        before, after = load_file(next(folder.glob("*.safetensors"))), run.weights(model)
        changed = {name for name in before if not torch.equal(before[name].float(), after[name].float())}
        assert changed
        assert not [name for name in changed if frozen and name.startswith(frozen)]


def test_the_same_seed_gives_the_same_run(train):
    again = train("logging.tensorboard=false")
    assert again.losses == train().losses
    assert_same_weights(train(), again)


def test_the_losses_are_those_on_file(train):
    """A change that should not alter the computation must not.

    After one that should, empty the list in the file, run this test, and look at what it wrote before it is committed.
    The file has one entry for each kind of machine that wrote one.
    """
    machine = {"cpu": cpu_model(), "torch": torch.__version__, "transformers": version("transformers")}
    run = train("profile.max_tokens=96", f"policy.model={train.policy_with_one_end}")  # long profiles, most without end
    now = {**machine, "losses": run.losses}
    golden = json.loads(GOLDEN.read_text())
    mine = [entry for entry in golden if entry.items() >= machine.items()]
    if not golden:
        GOLDEN.write_text(json.dumps([now], indent=2) + "\n")
        pytest.fail(f"{GOLDEN} was empty and has been written anew")
    if not mine:
        pytest.skip(f"float32 sums differ between CPUs and versions: the losses on file are not of {machine}")
    assert mine == [now]


def cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().split("\n\n")[0].splitlines() if info.is_file() else []
    known = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = hashlib.sha256(known.get("flags", platform.processor()).encode()).hexdigest()[:8]
    return " ".join([*(known.get(key, "?") for key in ("vendor_id", "cpu family", "model")), flags])


def test_two_processes_give_the_losses_of_one(train):
    """But for rounding: a process packs its own share into micro-batches."""
    run = train(nproc=2)
    assert run.exit_code == 0, run.stderr
    assert run.losses == pytest.approx(train().losses, rel=1e-6)
    assert_trained_alike(train, train(), run)


REWARD = "rlso.reward=log_softmax + mrr@5 + log_rank - 0.5 length - copied - 2 * repetition"


@pytest.mark.parametrize(
    "options",
    [
        ("rlso.standardize=session", "rlso.objective=rloo", "rlso.num_profiles=3"),
        ("rlso.standardize=leave-one-out", "rlso.kl_penalty=0.1"),
        ("rlso.objective=grpo", "rlso.num_profiles=3", "rlso.clip_epsilon=0.1"),
        ("rlso.objective=dpo", "rlso.num_profiles=3"),
    ],
)
def test_a_reward_of_many_terms_trains_alike_on_two_processes(train, options):
    options = (REWARD, "rlso.overlong_penalty=0.5", *options)
    one, two = train(*options), train(*options, nproc=2)
    assert one.exit_code == two.exit_code == 0, one.stderr + two.stderr
    assert two.losses == pytest.approx(one.losses, rel=1e-5, abs=1e-6)  # those of RLOO and GRPO are near 0
    rollouts = [[line for line in run.lines if "reward/mean" in line] for run in (one, two)]
    assert rollouts[0]
    for line, other in zip(*rollouts, strict=True):
        for term in ("log_softmax", "mrr@5", "log_rank", "length", "copied", "repetition"):
            assert other[f"reward/{term}"] == pytest.approx(line[f"reward/{term}"], rel=1e-5)
        assert line["reward/copied"] == line["profile/copied_share"]
        assert line["reward/repetition"] == line["profile/repetition"]
        assert 0 < line["profile/distinct_share"] <= 1
        assert other["profile/entropy"] == pytest.approx(line["profile/entropy"], rel=1e-5)
        assert line["profile/entropy"] > 0


def test_processes_share_the_evaluation(train):
    """Two processes evaluate a run again; its data set is gone, so that one of them prepares it for both."""
    one = train("evaluation.samples=2")
    again = train.new_folder()
    shutil.copytree(one.folder, again)
    (again / "results.json").unlink()
    shutil.rmtree(again / "data")
    two = train("evaluation.samples=2", nproc=2, resume=again)
    assert two.exit_code == 0, two.stderr
    first, second = (json.loads((run.folder / "results.json").read_text()) for run in (one, two))
    times = {"seconds"}
    assert {key: first[key] for key in first.keys() - times} == {key: second[key] for key in second.keys() - times}
    for name in ("profiles.parquet", "per_user.parquet"):
        assert read_parquet(one.folder / name).equals(read_parquet(again / name))


def test_fewer_sessions_are_evaluated_than_there_are_processes(train):
    run = train("evaluation.max_sessions=1", nproc=2)
    assert run.exit_code == 0, run.stderr
    assert json.loads((run.folder / "results.json").read_text())["num_sessions"] == 1


@pytest.mark.parametrize("size", [1, 2, 8])
def test_micro_batches_do_not_change_the_losses(train, size):
    run = train(f"rlso.micro_batch_tokens={1000 * size}", f"contrastive.micro_batch_tokens={100 * size}")
    assert run.losses == pytest.approx(train().losses, rel=1e-6)
    assert_trained_alike(train, train(), run)


@pytest.mark.parametrize(
    ("stage", "method"), [(1, "LangPTune"), (2, "LangPTune"), (3, "LangPTune-CL"), (3, "LangPTune-RLSO")]
)
def test_zero_stages_of_two_processes_do_not_change_the_losses(train, stage, method):
    """Stage 3 sums in another order, and only one model is trained there: an embedding that moves by 1e-6 is enough
    to swap two items that nearly tie, and so to change a reward of the policy."""
    plain = train(f"method={method}", nproc=2)
    run = train(f"method={method}", f"engine.zero_stage={stage}", nproc=2)
    assert run.exit_code == 0, run.stderr
    assert run.losses == pytest.approx(plain.losses, rel=1e-6)
    assert_trained_alike(train, plain, run)


@pytest.mark.parametrize("stage", [2, 3])
def test_zero_stages_do_not_change_losses_whose_gradients_are_rounded(train, stage):
    """The layers that train read their matrices in both passes, also where a process holds a part of each."""
    options = ("method=LangPTune-RLSO", "engine.precision=bf16", "rlso.gradient_checkpointing=true")
    plain = train(*options, nproc=2)
    run = train(*options, f"engine.zero_stage={stage}", nproc=2)
    assert run.exit_code == 0, run.stderr
    assert run.losses == pytest.approx(plain.losses, rel=1e-3)


@pytest.mark.parametrize(
    ("stage", "offload", "method"),
    [
        (1, "optimizer", "LangPTune"),
        (2, "optimizer", "LangPTune"),
        (3, "parameters", "LangPTune-CL"),
        (3, "parameters", "LangPTune-RLSO"),
    ],
)
def test_offload_does_not_change_the_losses(train, stage, offload, method):
    plain = train(f"method={method}")
    run = train(f"method={method}", f"engine.zero_stage={stage}", f"engine.offload={offload}")
    assert run.exit_code == 0, run.stderr
    assert run.losses == pytest.approx(plain.losses, rel=1e-6)
    assert_trained_alike(train, plain, run)


def test_a_killed_process_ends_the_others_and_is_named(train):
    with train.start(nproc=2) as (launcher, folder):
        while launcher.poll() is None and not (folder / "metrics.jsonl").is_file():
            time.sleep(0.01)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        os.kill(int(children[1]), signal.SIGKILL)
        started = time.monotonic()
        _, stderr = launcher.communicate(timeout=60)
    assert time.monotonic() - started < 30
    assert launcher.returncode == 137
    assert "Rank 1 of 2 on" in stderr
    assert "was ended by SIGKILL" in stderr
    assert "Traceback" not in stderr


def test_processes_end_with_the_command_that_started_them(train):
    with train.start(nproc=2) as (launcher, folder):
        while launcher.poll() is None and not (folder / "metrics.jsonl").is_file():
            time.sleep(0.01)
        children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
        launcher.kill()
        launcher.communicate(timeout=30)  # returns once nobody can write to its stderr any more
    assert len(children) == 2
    assert not any(is_running(child) for child in children)
    resumed = train(nproc=2, resume=folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train(nproc=2).lines


def is_running(process: str) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_profiles_that_never_end_are_warned_of_once(train):
    run = train("profile.max_tokens=2", "profile.temperature=0.1")
    assert run.exit_code == 0, run.stderr
    assert run.stderr.count("No profile of this batch ended within profile.max_tokens = 2") == 1
    assert {line["profile/overlong_rate"] for line in run.lines if "profile/overlong_rate" in line} == {1.0}


def test_equal_rewards_within_every_session_are_warned_of_once(train):
    run = train("rlso.reward=0.000001 mrr@1", "rlso.overlong_reward=0", "rlso.overlong_penalty=none")
    assert run.exit_code == 0, run.stderr
    rollouts = [line for line in run.lines if "reward/equal_share" in line]
    assert any(line["reward/equal_share"] == 1 and line["profile/overlong_rate"] < 1 for line in rollouts)
    assert run.stderr.count("Within every session of this batch all profiles have one reward by rlso.reward") == 1


def test_profiles_of_one_token_train_and_resume(train):
    """All that is written is the end of the turn, or the first token of what did not end."""
    options = ("profile.max_tokens=1", "checkpoint.every=1")
    stopped = train.stop_at(9, signal.SIGINT, *options)
    assert stopped.exit_code == 130, stopped.stderr
    resumed = train(*options, resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train(*options).lines
    assert {line["profile/tokens"] for line in resumed.lines if "profile/tokens" in line} == {1.0}


def test_bfloat16_is_near_float32(train):
    run = train("engine.precision=bf16")
    assert run.exit_code == 0, run.stderr
    assert run.losses[:3] == pytest.approx(train().losses[:3], rel=0.05)


def test_lora_trains_and_its_policy_loads_with_peft(train):
    from peft import AutoPeftModelForCausalLM

    run = train("policy.train=lora", "policy.lora_rank=4")
    assert run.exit_code == 0, run.stderr
    assert "Warning" not in run.stderr
    with quiet():
        AutoPeftModelForCausalLM.from_pretrained(run.folder / "policy")
    assert any(weight.abs().max() > 0 for name, weight in run.weights("policy").items() if "lora_B" in name)


def test_lora_in_bfloat16_starts_at_its_reference_and_leaves_it(train):
    run = train(
        "policy.train=lora",
        "policy.lora_rank=4",
        "engine.precision=bf16",
        "rlso.kl_penalty=0.2",
        "rlso.gradient_checkpointing=true",
    )
    assert run.exit_code == 0, run.stderr
    first, *others = (line["kl/reference"] for line in run.lines if "kl/reference" in line)
    assert first == 0
    assert all(others)
    assert max(map(abs, others)) > 1e-4  # a mean over few short profiles, which may be near 0 by chance


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_run_stopped_by_ctrl_c_and_resumed_is_the_uninterrupted_one(train, step):
    stopped = train.stop_at(step, signal.SIGINT)
    assert stopped.exit_code == 130, stopped.stderr
    resumed = train(resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train().lines
    assert_same_weights(train(), resumed)


def test_profiles_that_were_written_before_ctrl_c_are_kept(train):
    small_batches = ("profile.token_budget=3000", f"policy.model={train.policy_with_one_end}", "profile.max_tokens=96")
    stopped = train.stop_at(0, signal.SIGINT, *small_batches)
    assert stopped.exit_code == 130, stopped.stderr
    lines = (stopped.folder / "checkpoints" / "profiles-0-0-of-1.jsonl").read_text().splitlines()
    written = [profile for line in lines for profile in json.loads(line)["tokens"]]
    resumed = train(*small_batches, resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert 0 < len(written) < len(json.loads((resumed.folder / "checkpoints" / "profiles-0.json").read_text())["texts"])
    assert resumed.lines == train(*small_batches).lines


def test_a_resumed_iteration_keeps_its_own_reference(train):
    options = ("rlso.kl_reference=iteration", "rlso.kl_penalty=0.5", "checkpoint.every=1")
    stopped = train.stop_at(11, signal.SIGINT, *options)
    assert stopped.exit_code == 130, stopped.stderr
    resumed = train(*options, resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train(*options).lines


def test_a_reference_that_no_penalty_needs_is_not_kept(train):
    run = train("rlso.kl_reference=iteration", "checkpoint.every=1")
    assert run.exit_code == 0, run.stderr
    assert not list((run.folder / "checkpoints").glob("reference-*"))
    assert run.losses == train().losses


@pytest.mark.parametrize(("step", "phase", "every"), [(0, "validation", 50), (3, "validation", 3), (8, "", 1)])
def test_a_killed_run_resumes_from_its_last_checkpoint(train, step, phase, every):
    """Also before the first, and where one stands at the end of a phase, beside the validation after it."""
    killed = train.stop_at(step, signal.SIGKILL, f"checkpoint.every={every}", phase=phase)
    assert killed.exit_code == -signal.SIGKILL
    resumed = train(f"checkpoint.every={every}", resume=killed.folder)
    assert resumed.exit_code == 0, resumed.stderr
    assert resumed.lines == train().lines
    assert_same_weights(train(), resumed)


@pytest.mark.parametrize(
    ("options", "nproc"),
    [
        (("engine.zero_stage=2",), 2),
        (("engine.zero_stage=3",), 2),
        (("engine.zero_stage=1", "engine.offload=optimizer"), 1),
        (("engine.precision=bf16",), 1),
        (("policy.train=lora", "policy.lora_rank=4"), 1),
    ],
    ids=lambda case: " ".join(case) if isinstance(case, tuple) else f"{case} processes",
)
def test_every_kind_of_engine_resumes_to_the_uninterrupted_run(train, options, nproc):
    options = (*options, "checkpoint.every=1")
    stopped = train.stop_at(9, signal.SIGINT, *options, nproc=nproc)
    assert stopped.exit_code == 130, stopped.stderr
    resumed = train(*options, nproc=nproc, resume=stopped.folder)
    assert resumed.exit_code == 0, resumed.stderr
    expected = train(*options, nproc=nproc)
    assert resumed.lines == expected.lines
    assert_same_weights(expected, resumed)


def test_resuming_with_another_configuration_is_refused_with_the_difference(train):
    run = train("rlso.eta=2.0", resume=train().folder)
    assert run.exit_code == 2
    assert "- eta = 1.0" in run.stderr
    assert "+ eta = 2.0" in run.stderr


def test_resuming_a_finished_run_trains_nothing_more(train):
    before = train().losses
    run = train(resume=train().folder)
    assert run.exit_code == 0, run.stderr
    assert run.losses == before


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_checkpoint(train):
    run = train("rlso.learning_rate=1e30", "checkpoint.every=1")
    assert run.exit_code == 2
    assert "The rlso loss is " in run.stderr
    assert f"at step {len(run.losses) + 1} (iteration 1)" in run.stderr
    last = sorted((run.folder / "checkpoints").glob("step-*/state.json"))[-1]
    assert f"The last checkpoint is {last.parent}." in run.stderr
    assert json.loads(last.read_text())["position"]["step"] >= 3


def test_a_loss_that_is_no_number_before_the_first_checkpoint_promises_none(train):
    run = train("contrastive.learning_rate=1e30")
    assert run.exit_code == 2
    assert f"at step {len(run.losses) + 1} (iteration 1). There is no checkpoint yet." in run.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rlso.batch_size=100000", "training sessions. Set it to at most 100, or prepare more data."),
        (
            "data.max_sessions=5",
            "only 5 training sessions (data.max_sessions = 5 of 100). Set it to at most 5, or",
        ),
        ("profile.max_tokens=5000", "a context of 2048"),
        ("rlso.steps=0", 'set method = "LangPTune-CL"'),
        ("contrastive.steps=0", 'set method = "LangPTune-RLSO"'),
        ("policy.last_layers=3", "has 2 decoder layers"),
        ("embedder.dim=1000", "gives 32 dimensions"),
    ],
)
def test_what_cannot_work_is_said_before_training(train, override, message):
    run = train(override)
    assert run.exit_code == 2
    assert message in run.stderr
    assert not (run.folder / "policy").exists()


def test_batches_must_fit_the_processes(train):
    run = train("rlso.batch_size=7", "contrastive.batch_size=9", nproc=3)
    assert run.exit_code == 2
    assert "rlso.batch_size = 7 cannot be shared equally by 3 processes" in run.stderr
    assert run.stderr.count("error: ") == 1
    assert "Traceback" not in run.stderr
    assert "c10d" not in run.stderr, "nothing is asked of rank 0 when it has ended"


def test_every_process_needs_a_session_of_its_own(train):
    run = train("data.max_sessions=2", "rlso.batch_size=2", "contrastive.batch_size=2", nproc=3)
    assert run.exit_code == 2
    assert "There are 3 processes, but only 2 training sessions (data.max_sessions = 2 of 100)" in run.stderr
    assert "Start at most 2, or raise data.max_sessions." in run.stderr
    assert run.stderr.count("error: ") == 1


def test_a_second_start_leaves_the_run_in_progress_alone(train):
    long = ("iterations=8",)  # still at work when the second has loaded its models
    with train.start(*long) as (first, folder):
        while first.poll() is None and not (folder / "metrics.jsonl").is_file():
            time.sleep(0.01)
        second = train(*long, nproc=2, resume=folder)
        _, stderr = first.communicate(timeout=240)
    assert second.exit_code == 2
    assert second.stderr.count("error: ") == second.stderr.count("A run is in progress in") == 1
    assert "Traceback" not in second.stderr
    assert first.returncode == 0, stderr
    assert len(second.losses) == 8 * 7


@pytest.mark.parametrize("method", ["LangPTune-CL", "LangPTune-RLSO"])
def test_one_model_can_train_alone(train, method):
    run = train(f"method={method}")
    assert run.exit_code == 0, run.stderr
    results = json.loads((run.folder / "results.json").read_text())
    assert method in results["methods"]
