"""What every test stands on: no network, few threads, plain output, and the same examples in every run."""

import os

# Before any library reads them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "NO_COLOR": "1",
    "COLUMNS": "120",
    "WANDB_MODE": "disabled",
    "NUMBA_DISABLE_JIT": "1",  # ranx, of which compiling takes a minute and running as plain Python less than a second
}
os.environ["OMP_NUM_THREADS"] = "1"  # sums have one order, and small models lose more to waiting than they gain

from hypothesis import settings

settings.register_profile("langptune", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("langptune")
