#!/usr/bin/env bash
# Prints the lines of each room of src without tests, and the lines of tests, next to their ceilings in
# lines.toml. Fails if an area is above its ceiling or has none.
#
# Counts every line of .rs and .sql files, blank lines and comments included. Tests in src are folders
# `tests`, files `tests.rs` and items behind `#[cfg(test)]`.

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."

# shellcheck disable=SC2016 # the program of awk
find src tests -type f \( -name '*.rs' -o -name '*.sql' \) -not -path '*/node_modules/*' -print0 | xargs -0 awk '
    function total(prefix, label,    area, sum, most) {
        for (area in lines) if (index(area, prefix) == 1) { sum += lines[area]; most += ceiling[area] }
        printf "%-20s %7d %8d\n", label, sum, most
    }
    BEGIN {
        for (i = 2; i < ARGC; i++) if (split(ARGV[i], path, "/") > 2) is_room[path[2]] = 1
    }
    FILENAME == "lines.toml" {
        if (/^\[/) section = substr($0, 2, index($0, "]") - 2)
        if (/^[a-z]/) { split($0, pair, / *= */); ceiling[section " " pair[1]] = pair[2] + 0 }
        next
    }
    FNR == 1 {
        split(FILENAME, path, "/")
        room = path[2]
        sub(/\.rs$/, "", room)
        area = path[1] " " (room in is_room ? room : "other")
        if (path[1] == "src" && FILENAME ~ /\/tests\/|\/tests\.rs$/) area = "tests src"
        in_test_item = 0
    }
    /^ *#\[cfg\(test\)\]$/ && area ~ /^src/ && !in_test_item {
        in_test_item = 1
        has_body = 0
        indent = substr($0, 1, index($0, "#") - 1)
    }
    !in_test_item { lines[area]++; next }
    {
        # As rustfmt formats it, an item ends in the column of its attribute, or with `;`.
        lines["tests src"]++
        same_column = index($0, indent) == 1 && substr($0, length(indent) + 1, 1) != " "
        if (has_body ? $0 ~ "^" indent "}[;,]?$" : /;$/ || same_column && /[,}]$/) in_test_item = 0
        if (/\{$/) has_body = 1
    }
    END {
        printf "%-20s %7s %8s\n", "area", "lines", "ceiling"
        fflush()
        for (area in lines) {
            note = area in ceiling ? "" : "  no ceiling in lines.toml"
            if (area in ceiling && lines[area] > ceiling[area]) note = "  above its ceiling"
            if (note != "") failed = 1
            printf "%-20s %7d %8d%s\n", area, lines[area], ceiling[area], note | "sort"
        }
        close("sort")
        total("src ", "src, all")
        total("tests ", "tests, all")
        exit failed
    }
' lines.toml || exit 1
