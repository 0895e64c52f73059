"""What a process takes of the machine while it runs: host memory, GPU memory, and GPU time."""

import contextlib
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch

MILLISECONDS = 100  # between two samples of nvidia-smi


@dataclass(frozen=True)
class Usage:
    """Peak memory of the process on the host and of the whole GPU in MB, the process's elapsed
    seconds, and those in which kernels ran; the GPU's are None where nvidia-smi does not tell."""

    host_mb: float
    seconds: float
    gpu_mb: float | None = None
    gpu_seconds: float | None = None


def watch(process: subprocess.Popen, device: torch.device) -> Usage:
    """Wait for a process that runs on `device`."""
    sampler = _start_nvidia_smi(device)
    begin, peak = time.monotonic(), 0.0
    while process.poll() is None:
        with contextlib.suppress(OSError, IndexError):
            status = Path(f'/proc/{process.pid}/status').read_text()
            peak = float(status.split('VmHWM:')[1].split()[0]) / 1024
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    if sampler is None:
        return Usage(peak, seconds)
    sampler.terminate()
    return Usage(peak, seconds, *_read_samples(sampler.communicate()[0], seconds))


def _start_nvidia_smi(device: torch.device) -> subprocess.Popen | None:
    if device.type != 'cuda' or not shutil.which('nvidia-smi'):
        return None
    uuid = str(torch.cuda.get_device_properties(device).uuid).removeprefix('GPU-')
    return subprocess.Popen(
        ['nvidia-smi', '-i', f'GPU-{uuid}', '--query-gpu=utilization.gpu,memory.used',
         '--format=csv,noheader,nounits', '-lms', str(MILLISECONDS)],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def _read_samples(lines: str, seconds: float) -> tuple[float | None, float | None]:
    """Lines of `percent of the time, MB` -> (peak MB, seconds in which kernels ran)."""
    samples = []
    for line in lines.splitlines():
        with contextlib.suppress(ValueError):  # '[N/A]', or a line that was cut off
            percent, memory = map(float, line.split(','))
            samples.append((percent, memory))
    if not samples:
        return None, None
    percents, memories = zip(*samples, strict=True)
    return max(memories), seconds * sum(percents) / len(percents) / 100
