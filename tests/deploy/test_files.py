"""What lies in `deploy/` fits together and fits the app, as far as files can say; `tests/deploy/try_image.py` carries it out."""

import re
import shlex

import pytest
import yaml

from decoding.command_line import parser
from decoding.limits import PUBLIC
from tests.deploy.dockerfile import FILE, ROOT, Instruction, command, filled, instructions
from tests.test_documents import programs, runs
from tests.test_project import PROJECT, tracked

PORT = 8501
STEPS = instructions(FILE.read_text("utf-8"))
UNIT = (ROOT / "deploy/draftscope.service").read_text("utf-8")
NGINX = (ROOT / "deploy/nginx.conf").read_text("utf-8")
SPACE = (ROOT / "deploy/space/README.md").read_text("utf-8")
(SERVICE,) = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))["services"].values()


def of(kind: str) -> list[Instruction]:
    return [step for step in STEPS if step.kind == kind]


def environment() -> dict[str, str]:
    return {name: value for step in of("ENV") for name, value in step.pairs.items()}


def unit(key: str) -> list[str]:
    """All values of a key of the unit."""
    return re.findall(rf"^{key}=(.*)$", UNIT, re.MULTILINE)


def unit_environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in unit("Environment") for pair in line.split())


def test_an_unknown_instruction_is_no_blank():
    with pytest.raises(ValueError, match="Line 2: 'ONBUILD'"):
        instructions("FROM a\nONBUILD RUN b\n")


def test_lines_are_joined_and_comments_left_out():
    (run, env) = instructions("# a\nRUN b \\\n    && c\nENV D=e F='g h'\n")
    assert run == Instruction("RUN", "b && c", 2) and env.pairs == {"D": "e", "F": "g h"}
    assert filled("${D}/$X/$F", env.pairs) == "e//g h"


def test_all_that_is_copied_is_there_and_not_ignored():
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    copied = {source for step in of("COPY") for source in step.words[:-1]}
    assert all((ROOT / source).exists() for source in copied)
    assert copied == kept and "*" in lines


def test_all_that_runs_is_copied():
    copied = [source for step in of("COPY") for source in step.words[:-1]]
    wanted = {f for f in tracked() if f.parts[0] in ("app.py", "decoding", "viz", "pages", ".streamlit")}
    wanted |= {file.relative_to(ROOT) for file in (ROOT / "deploy").glob("*.py")}
    assert not {str(file) for file in wanted if not any(file.is_relative_to(source) for source in copied)}


def test_the_image_runs_the_app_as_nobody_special():
    last = [step.kind for step in STEPS if step.kind in ("USER", "CMD")]
    user, group = of("USER")[-1].text.split(":")
    assert last == ["USER", "CMD"] and int(user) > 0 and int(group) > 0  # numbers: what starts images cannot look names up
    assert f"--uid {user} " in next(step.text for step in of("RUN") if "useradd" in step.text)
    assert unit("User") == ["draftscope"]
    assert SERVICE["read_only"] and SERVICE["cap_drop"] == ["ALL"] and "no-new-privileges:true" in SERVICE["security_opt"]


def test_every_place_starts_the_public_server():
    (start,) = of("CMD")
    script = command(start.text)[-1]
    assert command(start.text)[:2] == ["streamlit", "run"] and (ROOT / script).is_file()
    assert unit("ExecStart")[0].endswith(f"streamlit run {script}")
    assert environment()["DRAFTSCOPE_MODE"] == unit_environment()["DRAFTSCOPE_MODE"] == "public"
    same = environment().keys() & unit_environment().keys() - {"STREAMLIT_SERVER_ADDRESS"}
    assert {name: environment()[name] for name in same} == {name: unit_environment()[name] for name in same}
    assert {"DRAFTSCOPE_HOME", "DRAFTSCOPE_CACHE", "STREAMLIT_SERVER_PORT", "STREAMLIT_SERVER_MAX_UPLOAD_SIZE"} <= same


def test_what_a_build_step_runs_is_there():
    for step in of("RUN"):
        assert not [name for name in programs(step.text) if not runs(name)]
    patterns = re.findall(r"grep '([^']+)' requirements.txt", of("RUN")[0].text)
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    assert [[line for line in lines if re.search(pattern, line)] for pattern in patterns] == [[lines[1]]]
    assert lines[1].startswith("torch>=")


def test_the_commands_that_make_a_server_ready_are_understood():
    """Those of a build step, and those that the document gives."""
    text = " ; ".join(step.text for step in of("RUN"))
    given = re.findall(r"-m decoding\.command_line ([^;&]+)", text)
    given += re.findall(r"`draftscope ([^`]+)`", (ROOT / "docs/hosting.md").read_text("utf-8"))
    understood = [parser().parse_args(shlex.split(command)) for command in given]
    assert len(understood) >= 4 and {options.do.__name__ for options in understood} == {"fetch", "run"}


def test_the_ports_agree():
    assert environment()["STREAMLIT_SERVER_PORT"] == unit_environment()["STREAMLIT_SERVER_PORT"] == str(PORT)
    assert [step.text for step in of("EXPOSE")] == [str(PORT)]
    assert SERVICE["ports"] == [f"127.0.0.1:{PORT}:{PORT}"]
    assert set(re.findall(r"proxy_pass (\S+);", NGINX)) == {f"http://127.0.0.1:{PORT}"}
    assert front_matter()["app_port"] == PORT
    (check,) = of("HEALTHCHECK")
    assert f"http://127.0.0.1:{PORT}/ready" in command(check.text)[-1]
    assert 'Route("/ready"' in (ROOT / "deploy/serve.py").read_text("utf-8")


def test_the_health_check_waits_longer_than_the_worker_has():
    """Or it would never hear the reason."""
    from deploy.readiness import PATIENCE

    (check,) = of("HEALTHCHECK")
    given = {name: float(seconds) for name, seconds in re.findall(r"--(\S+)=(\d+)s", check.text)}
    asked = float(re.findall(r"timeout=(\d+)", command(check.text)[-1])[0])
    assert PATIENCE < asked < given["timeout"] < given["interval"]


def test_what_is_kept_lies_in_volumes():
    places = {environment()["DRAFTSCOPE_HOME"], environment()["DRAFTSCOPE_CACHE"]}
    (volume,) = of("VOLUME")
    assert set(volume.words) == places == {mount.split(":")[1] for mount in SERVICE["volumes"]}
    whole = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text("utf-8"))
    assert {mount.split(":")[0] for mount in SERVICE["volumes"]} == set(whole["volumes"])
    assert unit("StateDirectory") == unit("CacheDirectory") == ["draftscope"]
    assert places == {"/var/lib/draftscope", "/var/cache/draftscope"}  # where systemd puts these two


def test_compose_builds_the_dockerfile_from_the_root():
    build, folder = SERVICE["build"], ROOT / "deploy"
    assert (folder / build["context"]).resolve() == ROOT and ROOT / build["dockerfile"] == FILE


def test_a_file_that_the_app_takes_passes_every_door():
    megabytes = PUBLIC.upload / 2**20
    for size in (environment()["STREAMLIT_SERVER_MAX_UPLOAD_SIZE"], re.findall(r"client_max_body_size (\d+)m;", NGINX)[0]):
        assert megabytes < float(size) <= 2 * megabytes


def test_the_proxy_passes_websockets_and_logs_no_query():
    assert NGINX.count("{") == NGINX.count("}")
    for needed in ("proxy_http_version 1.1;", "Upgrade $http_upgrade;", "Connection $draftscope_connection;", "Host $http_host;"):
        assert needed in NGINX
    (form,) = re.findall(r"log_format draftscope '(.+)';", NGINX)
    assert not re.search(r"\$(request|request_uri|args|query_string)\b", form)


def test_the_proxy_lets_a_class_in_and_waits_for_nobody():
    """As many tabs as the app takes of an address, half of which load a page with six connections more each."""
    (most,) = re.findall(r"limit_conn draftscope (\d+);", NGINX)
    assert PUBLIC.address is not None and int(most) >= 4 * PUBLIC.address.tabs
    assert {"client_header_timeout", "client_body_timeout", "send_timeout"} <= set(re.findall(r"^ *(\w+)", NGINX, re.MULTILINE))


def front_matter() -> dict:
    return yaml.safe_load(SPACE.split("---")[1])


def test_the_space_is_one_of_docker():
    said = front_matter()
    assert said["sdk"] == "docker" and said["license"] == PROJECT["project"]["license"].lower()
    assert len(said["short_description"]) <= 60
    taken = re.findall(r"git archive HEAD (.+) \|", SPACE)[0].split()
    for step in of("COPY"):
        assert not [source for source in step.words[:-1] if source.split("/")[0] not in taken]


def test_the_unit_is_closed():
    wanted = {
        "NoNewPrivileges": "true", "ProtectSystem": "strict", "ProtectHome": "true", "PrivateTmp": "true",
        "CapabilityBoundingSet": "", "SystemCallFilter": "@system-service",
    }  # fmt: skip
    assert {key: unit(key)[0] for key in wanted} == wanted
