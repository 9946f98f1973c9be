#!/usr/bin/env bash
# Runs Autobahn's WebSocket conformance suite against the echo example, the cases of compression
# (12.* and 13.*) among it. Exits 0 if none failed, 1 if some did, 2 if it could not run.
#
#   scripts/autobahn.sh [--restart-every SECONDS] [CASE...]
#   e.g. scripts/autobahn.sh '7.*' 9.1.1
#
# With --restart-every, the example hands every connection over to a new process as often, in the
# middle of whatever the suite is doing. PROFILE=dev takes the build that the tests have made.
#
# The suite is written in Python 2.7: PYTHON2 names one, or it is looked for. What is installed
# goes below target/autobahn, the reports of the single cases to target/autobahn/reports.
set -euo pipefail
cd "$(dirname "$0")/.."

target=$PWD/${CARGO_TARGET_DIR:-target}
case ${CARGO_TARGET_DIR:-} in /*) target=$CARGO_TARGET_DIR ;; esac
home=$target/autobahn
port=${AUTOBAHN_PORT:-9001}
profile=${PROFILE:-release}
folder=${profile/dev/debug}
restarts=()
if [ "${1:-}" = --restart-every ]; then
    restarts=("$1" "${2:?how many seconds?}")
    shift 2
fi

cannot() {
    echo "autobahn: $*" >&2
    exit 2
}

find_python() {
    local candidate
    for candidate in "${PYTHON2:-}" python2.7 python2 \
        "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python; do
        if [ -n "$candidate" ] && "$candidate" -c \
            'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

# Every step is chained: within `||` bash does not stop at the first that fails.
install() {
    rm -rf "$home/venv" "$home/virtualenv" &&
        "$1" -m pip install --quiet --target "$home/virtualenv" virtualenv==20.15.1 &&
        PYTHONPATH=$home/virtualenv "$1" -m virtualenv --quiet "$home/venv" &&
        "$home/venv/bin/pip" install --quiet autobahntestsuite==0.8.2 &&
        touch "$home/installed"
}

mkdir -p "$home"
if [ ! -e "$home/installed" ]; then
    python=$(find_python) || cannot "needs Python 2.7, found none; set PYTHON2, or: pyenv install 2.7.18"
    install "$python" >"$home/install.log" 2>&1 || {
        tail -n 5 "$home/install.log" >&2
        cannot "the suite could not be installed; all of it is in $home/install.log"
    }
fi

cargo build --quiet --profile "$profile" -p throng-server --example echo || cannot "the example does not build"
if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    cannot "port $port is in use; set AUTOBAHN_PORT"
fi
# In a group of its own: each process of it starts the next.
set -m
"$target/$folder/examples/echo" "127.0.0.1:$port" "${restarts[@]}" >"$home/echo.log" &
echo=$!
set +m
trap 'kill -- "-$echo" 2>/dev/null || true' EXIT
until (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
    kill -0 "$echo" 2>/dev/null || cannot "the echo server ended"
    sleep 0.1
done

cases=$(printf '"%s",' "${@:-*}")
cat >"$home/spec.json" <<SPEC
{
  "outdir": "$home/reports",
  "servers": [{"agent": "throng", "url": "ws://127.0.0.1:$port"}],
  "cases": [${cases%,}],
  "exclude-cases": [],
  "exclude-agent-cases": {}
}
SPEC
rm -rf "$home/reports"
"$home/venv/bin/wstest" -m fuzzingclient -s "$home/spec.json" >"$home/run.log" 2>&1 ||
    cannot "the suite did not run; see $home/run.log"
kill -0 -- "-$echo" || cannot "the echo server ended; see $home/run.log"
[ -e "$home/reports/index.json" ] || cannot "the suite left no report; see $home/run.log"

[ ${#restarts[@]} = 0 ] || echo "$(($(wc -l <"$home/echo.log") - 1)) restarts meanwhile"
"$home/venv/bin/python" - "$home/reports" <<'SUMMARY'
import collections, json, os, sys

cases = json.load(open(os.path.join(sys.argv[1], "index.json")))["throng"]
counts = collections.Counter()
failed = 0
numeric = lambda case: [int(part) for part in case.split(".")]
for case in sorted(cases, key=numeric):
    report = cases[case]
    # How the messages were handled, and how the connection was closed.
    verdicts = [report["behavior"], report["behaviorClose"]]
    worst = next((v for v in verdicts if v not in ("OK", "NON-STRICT", "INFORMATIONAL")), None)
    failed += worst is not None
    counts[worst or next((v for v in verdicts if v != "OK"), "OK")] += 1
    if verdicts != ["OK", "OK"]:
        path = os.path.join(sys.argv[1], report["reportfile"].replace(".json", ".html"))
        print("%-8s %s, close %s: %s" % (case, verdicts[0], verdicts[1], path))
print("%d cases: %s" % (len(cases), ", ".join("%d %s" % (n, v) for v, n in counts.most_common())))
sys.exit(1 if failed else 0)
SUMMARY
