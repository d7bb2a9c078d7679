"""What is said of sizes that do not fit can be done."""

import re

import pytest
import torch

from langptune_rs.config import load_config
from langptune_rs.errors import ConfigError
from langptune_rs.training.checks import check_precision, check_reward, check_sizes


@pytest.mark.parametrize(("num_processes", "num_sessions"), [(1, 5), (2, 5), (3, 5), (4, 4), (4, 7)])
def test_a_batch_size_that_is_advised_is_taken(monkeypatch, num_processes, num_sessions):
    monkeypatch.setattr("langptune_rs.training.checks.world_size", lambda: num_processes)
    overrides: list[str] = []
    for section in ("contrastive", "rlso"):
        with pytest.raises(ConfigError, match=rf"{section}\.batch_size = ") as raised:
            check_sizes(load_config("quickstart", overrides), num_sessions, 100)
        most = re.search(r"Set it to at most (\d+),", str(raised.value))[1]
        overrides.append(f"{section}.batch_size={most}")
    check_sizes(load_config("quickstart", overrides), num_sessions, 100)


def test_steps_on_histories_alone_have_batches_of_the_whole_train_split():
    alone = ["method=LangPTune-CL", "contrastive.history_steps=3", "contrastive.steps=0"]
    check_sizes(load_config("quickstart", [*alone, "contrastive.batch_size=100"]), 5, 100)
    with pytest.raises(ConfigError, match=r"only 100 training sessions\. Set it to at most 100, or prepare more data"):
        check_sizes(load_config("quickstart", [*alone, "contrastive.batch_size=101"]), 5, 100)
    with pytest.raises(ConfigError, match=r"only 5 training sessions .* at most 5, or raise data\.max_sessions"):
        check_sizes(load_config("quickstart", [*alone[:2], "contrastive.batch_size=100"]), 5, 100)


def test_bfloat16_is_refused_where_the_gpu_lacks_it(monkeypatch):
    bf16 = "engine.precision=bf16"
    check_precision(load_config("quickstart", [bf16]))  # this machine computes in it, by units or by emulation
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    overrides: list[str] = [bf16, "rlso.precision=bf16"]
    with pytest.raises(ConfigError, match=r"Tesla T4 has compute capability 7\.5") as raised:
        check_precision(load_config("quickstart", overrides))
    for key, value in re.findall(r'([a-z]+\.precision) = "(fp32)"', str(raised.value)):
        overrides.append(f"{key}={value}")
    assert len(overrides) == 4
    check_precision(load_config("quickstart", overrides))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    check_precision(load_config("quickstart", [bf16]))


def test_a_reward_of_scores_needs_a_recommender_with_scores() -> None:
    config = load_config("quickstart", ["rlso.reward=ndcg + 0.1 log_softmax", "rlso.overlong_penalty=0.5"])
    check_reward(config, gives_scores=True)
    with pytest.raises(ConfigError, match=r"rlso.reward has log_softmax, .* Write log_rank instead"):
        check_reward(config, gives_scores=False)
    check_reward(load_config("quickstart", ["rlso.reward=ndcg"]), gives_scores=False)


def test_a_share_of_the_sessions_that_fills_no_batch_is_told_from_a_limit():
    config = load_config("quickstart", ["data.train_share=0.01", "data.max_sessions=none"])
    with pytest.raises(
        ConfigError, match=r"only 5 training sessions \(data.train_share = 0.01\)\. .* raise data\.train_"
    ):
        check_sizes(config, 5, 5)
