# SPDX-FileCopyrightText: 2026 The jdistill Authors
# SPDX-License-Identifier: Apache-2.0
"""Scripts and manifests, each read by the tool that is to read it.

Skipped without the tool: shellcheck, check-jsonschema, xpk and sky on the PATH
(or in the folder $LAUNCH_TOOLS); $JOBSET_CRD is jobset.x-k8s.io_jobsets.yaml of
the JobSet repository.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
TRICKY = ["x.py", "--a=b c", "it's", '"$HOME"', "$(id)", "", "*", "a: [b"]


def tool(name: str) -> str:
  path = f"{os.environ.get('LAUNCH_TOOLS', '')}:{os.environ['PATH']}"
  found = shutil.which(name, path=path)
  if found is None:
    pytest.skip(f"{name} is not installed")
  return found


def jobset(*args: str) -> subprocess.CompletedProcess[str]:
  base = ["--name", "mine", "--image", "registry/jdistill"]
  return subprocess.run(
    [sys.executable, LAUNCH / "jobset.py", *base, *args],
    capture_output=True,
    text=True,
  )


def rendered(*args: str) -> dict:
  found = jobset(*args)
  assert found.returncode == 0, found.stderr
  return yaml.safe_load(found.stdout)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_bash_reads_it(path):
  subprocess.run(["bash", "-n", path], check=True)
  assert path.suffix != ".sh" or os.access(path, os.X_OK)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda p: p.name)
def test_shellcheck_finds_nothing(path):
  found = subprocess.run(
    [tool("shellcheck"), path], capture_output=True, text=True
  )
  assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", sorted(p.name for p in LAUNCH.iterdir()))
def test_each_file_says_whose_it_is_and_what_restarts(name):
  if name.startswith((".", "__")) or name == "Dockerfile.dockerignore":
    return
  text = (LAUNCH / name).read_text()
  assert "SPDX-License-Identifier: Apache-2.0" in text
  if name not in ("Dockerfile", "jobset.py"):
    assert "143" in text


def pod(manifest: dict) -> dict:
  [job] = manifest["spec"]["replicatedJobs"]
  return job["template"]["spec"]["template"]["spec"]


@pytest.mark.parametrize(
  ("tpu", "topology", "chips", "hosts"),
  [
    ("v5e", "1x1", 1, 1),
    ("v5e", "2x4", 8, 1),
    ("v5e", "4x4", 4, 4),
    ("v6e", "16x16", 4, 64),
    ("v5p", "2x2x1", 4, 1),
    ("v4", "4x4x8", 4, 32),
    ("tpu7x", "2x2x2", 4, 2),
  ],
)
def test_a_pod_for_each_host(tpu, topology, chips, hosts):
  found = rendered("--tpu", tpu, "--topology", topology, "train", "x.py")
  [job] = found["spec"]["replicatedJobs"]
  assert job["template"]["spec"]["parallelism"] == hosts
  assert job["template"]["spec"]["completions"] == hosts
  limits = pod(found)["containers"][0]["resources"]["limits"]
  assert limits == {"google.com/tpu": chips}


def test_arguments_pass_through_and_spot_is_the_default():
  found = rendered("train", *TRICKY)
  [container] = pod(found)["containers"]
  args = [word.replace("$$(", "$(") for word in container["args"]]
  assert args == ["train", *TRICKY, "--distributed"]
  spot = "cloud.google.com/gke-spot"
  assert pod(found)["nodeSelector"][spot] == "true"
  found = rendered("--on-demand", "--queue", "q", "evaluate", "REF")
  assert spot not in pod(found)["nodeSelector"]
  assert pod(found)["containers"][0]["args"] == ["evaluate", "REF"]
  assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "q"


def fate(manifest: dict, code: int) -> str:
  """What the rules make of a pod's exit code, as their documents say."""
  [job] = manifest["spec"]["replicatedJobs"]
  policy = job["template"]["spec"]["podFailurePolicy"]["rules"]
  assert all(rule["action"] == "FailJob" for rule in policy)
  exits = [rule["onExitCodes"] for rule in policy if "onExitCodes" in rule]
  names = {container["name"] for container in pod(manifest)["containers"]}
  assert {rule["containerName"] for rule in exits} <= names
  index = [i for i, rule in enumerate(exits) if code in rule["values"]]
  if not index:
    reason, message = "BackoffLimitExceeded", "Job has reached the limit"
  else:
    reason = "PodFailurePolicy"
    message = (
      f"Container jdistill for pod default/mine failed with exit code {code} "
      f"matching FailJob rule at index {index[0]}"
    )
  for rule in manifest["spec"]["failurePolicy"]["rules"]:
    patterns = rule.get("onJobFailureMessagePatterns", [""])
    if reason in rule["onJobFailureReasons"] and any(
      re.search(pattern, message) for pattern in patterns
    ):
      return rule["action"]
  return "RestartJobSet"


@pytest.mark.parametrize(
  ("code", "action"),
  [
    (143, "RestartJobSetAndIgnoreMaxRestarts"),
    (2, "FailJobSet"),
    (1, "RestartJobSet"),
    (134, "RestartJobSet"),
    (137, "RestartJobSet"),
  ],
)
def test_what_becomes_of_an_exit_code(code, action):
  assert fate(rendered("train", "x.py"), code) == action


@pytest.mark.parametrize(
  ("args", "said"),
  [
    (["--topology", "4x4x4", "train"], "say it as 4x4"),
    (["--tpu", "v4", "--topology", "4x4", "train"], "say it as 2x2x4"),
    (["--topology", "3x5", "train"], "4 chips"),
    (["--name", "Mine", "train"], "small letters"),
    ([], "say what to run"),
  ],
)
def test_mistakes_are_said_in_a_line(args, said):
  found = jobset(*args)
  assert found.returncode == 2
  assert said in found.stderr
  assert "Traceback" not in found.stderr


def strict(schema):
  """The schema, with no field allowed that it does not name."""
  if isinstance(schema, list):
    return [strict(item) for item in schema]
  if not isinstance(schema, dict):
    return schema
  schema = {key: strict(value) for key, value in schema.items()}
  if schema.get("type") == "object" and "properties" in schema:
    schema.setdefault("additionalProperties", False)
  if schema.pop("x-kubernetes-int-or-string", False):
    schema.pop("pattern", None)  # of the strings alone
  return schema


def test_the_jobset_fits_its_schema(tmp_path):
  program, path = tool("check-jsonschema"), os.environ.get("JOBSET_CRD")
  if path is None:
    pytest.skip("JOBSET_CRD is not set")
  crd = yaml.safe_load(pathlib.Path(path).read_text())
  [version] = [v for v in crd["spec"]["versions"] if v["name"] == "v1alpha2"]
  schema = strict(version["schema"]["openAPIV3Schema"])
  schema["properties"]["metadata"] = {"type": "object"}
  (tmp_path / "schema.json").write_text(json.dumps(schema))

  def complaints(manifest: dict) -> str:
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    found = subprocess.run(
      [program, "--schemafile", "schema.json", "manifest.json"],
      cwd=tmp_path,
      capture_output=True,
      text=True,
    )
    return found.stdout if found.returncode else ""

  for args in (["train", *TRICKY], ["--slices", "2", "--queue", "q", "train"]):
    assert not complaints(rendered(*args))
  wrong = rendered("train", "x.py")
  wrong["spec"]["failurePolicy"]["rules"][0]["action"] = "Fail"
  pod(wrong)["imagee"] = "x"
  said = complaints(wrong)
  assert "'Fail' is not one of" in said
  assert "imagee" in said


def test_xpk_takes_the_flags_and_makes_a_jobset(tmp_path):
  xpk = tool("xpk")
  manifest = tmp_path / "manifest.yaml"
  flags = f"--dry-run --skip-validation --output-manifest-file={manifest}"
  path = f"{pathlib.Path(xpk).parent}:{os.environ['PATH']}"
  found = subprocess.run(
    [LAUNCH / "xpk.sh", "train", *TRICKY],
    env={
      "PATH": path,
      "HOME": str(tmp_path),
      "IMAGE": "registry/jdistill",
      "PROJECT": "p",
      "ZONE": "us-central1-a",
      "XPK_FLAGS": flags,
    },
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stdout + found.stderr
  made = yaml.safe_load(manifest.read_text())
  assert made["spec"]["failurePolicy"]["maxRestarts"] == 1000
  [job] = made["spec"]["replicatedJobs"]
  [rule] = job["template"]["spec"]["podFailurePolicy"]["rules"]
  exits = rule["onExitCodes"]
  assert (rule["action"], exits["operator"]) == ("FailJob", "NotIn")
  assert {1, 134, 137, 143} <= set(exits["values"])
  assert 2 not in exits["values"]
  # The command survives the shell that XPK puts around it.
  [container] = pod(made)["containers"]
  (tmp_path / "jdistill").write_text(
    f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
    "sys.exit(143)\n"
  )
  (tmp_path / "jdistill").chmod(0o755)
  ran = subprocess.run(
    container["command"],
    env={"PATH": f"{tmp_path}:/usr/bin:/bin", "HOME": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert ran.returncode == 143
  wanted = json.dumps(["train", *TRICKY, "--distributed"])
  assert wanted in ran.stdout.splitlines()


def test_skypilot_reads_the_task(tmp_path):
  python = pathlib.Path(tool("sky")).with_name("python")
  code = (
    "import json, sky, sys\n"
    "task = sky.Task.from_yaml(sys.argv[1])\n"
    "task.validate()\n"
    "[r] = task.resources\n"
    "print(json.dumps([str(r.cloud), r.accelerators, r.use_spot,"
    " r.job_recovery, task.num_nodes, task.run]))\n"
  )
  found = subprocess.run(
    [python, "-c", code, LAUNCH / "skypilot.yaml"],
    env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  cloud, tpus, spot, recovery, nodes, _ = json.loads(
    found.stdout.splitlines()[-1]
  )
  assert (cloud, tpus, nodes) == ("GCP", {"tpu-v5litepod-16": 1}, 1)
  assert spot
  assert recovery["recover_on_exit_codes"] == [143]


@pytest.mark.parametrize("extra", ["tpu", "cuda"])
def test_skypilot_passes_arguments_through(tmp_path, extra):
  task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
  program = tmp_path / "jdistill-venv" / "bin" / "jdistill"
  program.parent.mkdir(parents=True)
  program.write_text(
    f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n"
  )
  program.chmod(0o755)
  found = subprocess.run(
    ["bash", "-c", task["run"]],
    env={
      "PATH": "/usr/bin:/bin",
      "HOME": str(tmp_path),
      "EXTRA": extra,
      "TRAIN": "x.py --workdir 'gs://bucket/my run' --tau=2",
      "SKYPILOT_NODE_IPS": "10.0.0.1\n10.0.0.2",
      "SKYPILOT_NODE_RANK": "1",
      "SKYPILOT_NUM_NODES": "2",
    },
    capture_output=True,
    text=True,
    check=True,
  )
  flags = {
    "tpu": "--distributed",
    "cuda": "--coordinator 10.0.0.1:8476 --process-id 1 --num-processes 2",
  }
  words = ["train", "x.py", "--workdir", "gs://bucket/my run", "--tau=2"]
  assert json.loads(found.stdout) == [*words, *flags[extra].split()]
