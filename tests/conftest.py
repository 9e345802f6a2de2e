"""The CPU, also where there is a GPU: what is compared to the last bit, and toys made in tests, want one device.

One thread for every test: on tensors this small, threads wait for each other longer than they compute, and on a busy
machine the same test takes ten times as long with two."""

import os

os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # read when torch is first imported, by tests and by the commands they run
os.environ["CUDA_VISIBLE_DEVICES"] = ""
