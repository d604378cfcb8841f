"""No test: the steps of `deploy/Dockerfile` without Docker, in a bare Debian, and then the app as the image would start it.

    python -m tests.deploy.try_image [--root DIR] [--build-arg NAME=VALUE ...] [--lend FOLDER ...] [--keep]

Needs root and the package debootstrap. The base image is played by a minimal Debian with Python in an environment at `/usr/local`;
COPY, RUN, ENV, USER and CMD are carried out in it by chroot, each with nothing of this machine's environment but what says how
packages are reached. The app listens on 127.0.0.1 and the port of the image; its health check is asked as Docker would, by the
command of the Dockerfile and as its user, and then the app is ended by its process id.

What a chroot is not: it shares this machine's network and processes, and no limit of `deploy/compose.yaml` holds in it.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.dockerfile import FILE, ROOT, Instruction, command, filled, instructions

SUITE = "bookworm"  # as in the name of the base image
PACKAGES = "python3,python3-venv,ca-certificates"
PATH = "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
REACHED = ("PIP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "SSL_CERT_", "REQUESTS_CA_")
# How packages are reached here.
LENT = (
    "/etc/pip.conf",
    "/etc/xdg/pip",
    "/root/.config/pip",
    "/etc/ssl/certs",
    "/etc/resolv.conf",
    "/etc/hosts",
)
START = 180  # seconds until the app has to be healthy


@dataclass
class Image:
    """What an image has beside its files."""

    root: Path
    values: dict[str, str] = field(default_factory=dict)  # ENV and ARG
    given: dict[str, str] = field(default_factory=dict)  # --build-arg
    folder: str = "/"
    user: str = "0:0"
    command: list[str] = field(default_factory=list)
    health: list[str] = field(default_factory=list)

    def inside(self, path: str) -> Path:
        """A path of the image on this machine."""
        return self.root / str(Path(self.folder, path)).lstrip("/")

    @property
    def environment(self) -> dict[str, str]:
        reached = {name: value for name, value in os.environ.items() if name.startswith(REACHED)}
        return {"PATH": PATH, "HOME": "/root"} | reached | self.values

    def start(self, words: list[str], **how) -> subprocess.Popen:
        """A program in the image, as its user and in its folder."""
        there = ["/bin/sh", "-c", f'cd "{self.folder}" && exec "$0" "$@"', *words]
        return subprocess.Popen(["chroot", f"--userspec={self.user}", str(self.root), *there], env=self.environment, **how)

    def run(self, words: list[str]) -> None:
        if code := self.start(words).wait():
            sys.exit(f"{words} ended with code {code}.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, help="a folder for the image, which is not there yet")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--lend", action="append", default=[], metavar="FOLDER", help="shown in the image too: where pip finds packages"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder there")
    options = parser.parse_args()
    if os.geteuid() or not shutil.which("debootstrap"):
        sys.exit("This needs root, and the program debootstrap.")
    root = options.root or Path(tempfile.mkdtemp(prefix="image-", dir="/var/tmp"))
    if root.exists() and any(root.iterdir()):
        sys.exit(f"There is something in {root} already.")
    image = Image(root, given=dict(word.partition("=")[::2] for word in options.build_arg))
    try:
        base(root)
        for path in LENT:
            lend(root, path)
        for path in options.lend:
            mount(root, path, "--bind", "--options", "ro")
        for step in instructions(FILE.read_text("utf-8")):
            print(f"--- {step.kind} {step.text[:110]}", flush=True)
            carry_out(image, step)
        tried(image)
    finally:
        unmounted(root)
        if not options.keep:
            subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=True)


def base(root: Path) -> None:
    """What stands for the base image: Debian, and Python whose programs lie in front."""
    began = time.monotonic()
    made = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(root)]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    print(f"A bare Debian in {time.monotonic() - began:.0f} s", flush=True)
    mount(root, "/proc", "--rbind", "--make-rslave")
    mount(root, "/dev", "--rbind", "--make-rslave")
    subprocess.run(["chroot", str(root), "python3", "-m", "venv", "/usr/local"], check=True)


def mount(root: Path, path: str, *how: str) -> None:
    """Show a folder of this machine in the image at the same place, until all is done."""
    there = root / path.lstrip("/")
    there.mkdir(parents=True, exist_ok=True)
    if not os.path.ismount(there):
        subprocess.run(["mount", *how, path, str(there)], check=True)


def lend(root: Path, path: str) -> None:
    """Copy what pip and the network need to be told; what is there goes first, since a link in it leads out of the image."""
    there = root / path.lstrip("/")
    there.parent.mkdir(parents=True, exist_ok=True)
    if Path(path).is_dir():
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(path, there, ignore_dangling_symlinks=True)
    elif Path(path).is_file():
        there.unlink(missing_ok=True)
        shutil.copyfile(path, there)


def unmounted(root: Path) -> None:
    """Before anything is deleted: what is lent is not the image's."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for there in reversed([path for path in mounts if Path(path).is_relative_to(root.resolve())]):
        subprocess.run(["umount", there], check=True)


def carry_out(image: Image, step: Instruction) -> None:
    text = filled(step.text, image.values) if step.kind not in ("RUN", "CMD", "HEALTHCHECK") else step.text
    done = Instruction(step.kind, text, step.line)
    if step.kind == "ARG":
        image.values |= {name: image.given.get(name, value) for name, value in done.pairs.items()}
    elif step.kind == "ENV":
        image.values |= done.pairs
    elif step.kind == "WORKDIR":
        image.folder = text
        image.inside("").mkdir(parents=True, exist_ok=True)
    elif step.kind == "COPY":
        copied(image, done.words)
    elif step.kind == "RUN":
        began = time.monotonic()
        image.run(["/bin/sh", "-c", text])
        print(f"    {time.monotonic() - began:.0f} s", flush=True)
    elif step.kind == "USER":
        image.user = text
    elif step.kind == "CMD":
        image.command = command(text)
    elif step.kind == "HEALTHCHECK":
        image.health = command(text)


def copied(image: Image, words: list[str]) -> None:
    """As COPY does: what a folder holds, and files into a folder or to a name; what git ignores stays out."""
    *sources, target = words
    there = image.inside(target)
    for source in sources:
        listed = subprocess.run(["git", "ls-files", "--cached", "--others", "--exclude-standard", source], cwd=ROOT, check=True,
                                capture_output=True, text=True).stdout.splitlines()  # fmt: skip
        if not listed:
            sys.exit(f"COPY: there is no {source}.")
        for file in listed:
            folder = (ROOT / source).is_dir()
            place = there / Path(file).relative_to(source) if folder else there / Path(file).name if target.endswith("/") else there
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / file, place)


def tried(image: Image) -> None:
    """Start it, as its user, and ask for its health until it is healthy."""
    image.values["STREAMLIT_SERVER_ADDRESS"] = "127.0.0.1"  # the network is this machine's
    began = time.monotonic()
    app = image.start(image.command, start_new_session=True)
    try:
        while image.start(image.health, stderr=subprocess.DEVNULL).wait():
            if app.poll() is not None or time.monotonic() - began > START:
                sys.exit(f"Not healthy after {time.monotonic() - began:.0f} s; the app's exit code is {app.poll()}.")
            time.sleep(0.5)
        said = Path(f"/proc/{app.pid}/status").read_text()
        user = next(line for line in said.splitlines() if line.startswith("Uid"))
        print(f"healthy after {time.monotonic() - began:.1f} s, as {' '.join(user.split()[:2])}")
        visited(image)
    finally:
        os.killpg(app.pid, signal.SIGTERM)
        app.wait(30)
    print(f"ended with code {app.returncode}")


def visited(image: Image) -> None:
    """A visitor takes two steps, and the app is asked for its health again: now the worker has begun."""
    import asyncio

    from tests.bench.load import link, ready, stepped
    from tests.bench.tab import Tab

    async def visit() -> list[float]:
        tab = Tab(f"http://127.0.0.1:{image.values['STREAMLIT_SERVER_PORT']}", "Step", link(0, "speculative_sampling"))
        seconds = [await ready(tab)] + [await stepped(tab, number) for number in (1, 2)]
        await tab.close()
        return seconds

    print("a visitor could step after {:.1f} s and took steps in {:.2f} and {:.2f} s".format(*asyncio.run(visit())))
    if code := image.start(image.health).wait():
        sys.exit(f"Not healthy after two steps: the health check ended with code {code}.")


if __name__ == "__main__":
    main()
