#!/usr/bin/env bash
# Whether what watches Lamina watches something that there is: every metric that the dashboard, the alerts and
# docs/operations.md name is defined in the code, every one that the code defines is on the dashboard and in
# docs/operations.md, and every alert has its section there and a case in its tests. Needs nothing but grep and sed.
set -euo pipefail
cd "$(dirname "$0")/.."
dashboard=infra/dashboards/lamina.json alerts=infra/prometheus/alerts.yml tests=infra/prometheus/alerts_test.yml
manual=docs/operations.md
faults=0
fault() { echo "$1" >&2; faults=$((faults + 1)); }

# Names of metrics in files; a histogram's series are called as the histogram is.
named() { grep -ohE 'lamina_(batch|speed|serving)_[a-z0-9_]+' "$@" | sed -E 's/_(bucket|sum|count)$//' | sort -u; }
defined=$(grep -rhE '^pub const [A-Z_]+: &str = "lamina_' --include='*.rs' batch-layer/src speed-layer/src serving-layer/src \
  | grep -oE 'lamina_[a-z0-9_]+' | sort -u)
[ -n "$defined" ] || fault "no metric is defined in the code: a metric is a line \`pub const NAME: &str = \"lamina_…\";\`"

for file in "$dashboard" "$alerts" "$tests" "$manual"; do
  for name in $(comm -23 <(named "$file") <(echo "$defined")); do
    fault "$file: metric \`$name\` is not defined in the code: correct its name, or define it"
  done
done
for file in "$dashboard" "$manual"; do
  for name in $(comm -13 <(named "$file") <(echo "$defined")); do
    fault "$file: metric \`$name\` of the code is missing: show it, or take it out of the code"
  done
done
for alert in $(sed -nE 's/^ *- alert: (.+)$/\1/p' "$alerts"); do
  grep -qE "^#+ .*\b$alert\b" "$manual" || fault "$manual: alert \`$alert\` has no section: say what to do when it fires"
  grep -q "$alert" "$tests" || fault "$tests: alert \`$alert\` has no case"
done
[ "$faults" = 0 ] || { echo "$faults faults" >&2; exit 1; }
echo "$(echo "$defined" | wc -l) metrics: the code, the dashboard, the alerts and the manual agree"
