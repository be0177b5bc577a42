#!/usr/bin/env bash
# `make plant`: the tester tested. Builds a copy of the source with every bug of tests/plants.txt in
# it, switches on one after another, and demands that the tests named there fail, and that they pass
# with none. The product itself knows nothing of bugs.
#
# scripts/plant.sh [NAME ...]   only these

. "$(dirname "$0")/strict.sh" || exit
cd "$(dirname "$0")/.."
scripts/test-needs.sh

HOME_DIR=$PWD/target/plant
TREE=$HOME_DIR/tree
NEXT=$HOME_DIR/tree.next
export CARGO_TARGET_DIR=$HOME_DIR/target
SECONDS_MAX=180
AT_ONCE=${AT_ONCE:-$(nproc)}

fail() { echo "plant: $*" >&2; exit 2; }

# --- the table ---

names=()
declare -A what tests # by name
declare -a edit_bug edit_file edit_from edit_to

read_table() {
    local line state=outside file='' from='' to=''
    while IFS= read -r line || [ -n "$line" ]; do
        case $state in
            from) if [ "$line" = "====" ]; then state=to; else from+=$line$'\n'; fi ;;
            to)
                if [ "$line" != ">>>>" ]; then to+=$line$'\n'; continue; fi
                edit_bug+=("${names[-1]}") edit_file+=("$file") edit_from+=("$from") edit_to+=("$to")
                state=outside
                ;;
            outside)
                case $line in
                    '' | '#'*) ;;
                    '== '*)
                        read -r _ name words <<<"$line"
                        names+=("$name")
                        what[$name]=$words
                        tests[$name]=''
                        ;;
                    'test: '*) tests[${names[-1]}]+="${line#test: }"$'\n' ;;
                    'file: '*) file=${line#file: } ;;
                    '<<<<') state=from from='' to='' ;;
                    *) fail "tests/plants.txt: what is this? $line" ;;
                esac
                ;;
        esac
    done <tests/plants.txt
    [ $state = outside ] || fail "tests/plants.txt ends in the middle of an edit"
}

# --- the copy with all bugs in it ---

copy_source() {
    rm -rf "$NEXT"
    mkdir -p "$NEXT"
    git ls-files -coz --exclude-standard | while IFS= read -r -d '' file; do
        [ ! -e "$file" ] || printf '%s\0' "$file"
    done | xargs -0 cp -p --parents -t "$NEXT"
}

# What has not changed keeps its time, so that nothing is built again for its sake.
take_over() {
    local file
    find "$NEXT" -type f -printf '%P\0' | while IFS= read -r -d '' file; do
        ! cmp -s "$NEXT/$file" "$TREE/$file" || touch -r "$TREE/$file" "$NEXT/$file"
    done
    rm -rf "$TREE"
    mv "$NEXT" "$TREE"
}

replace_once() { # FILE FROM TO WHO
    local text before
    text=$(cat "$1" && echo x) || fail "$4: $1 is not there"
    text=${text%x}
    before=${text%%"$2"*}
    [ "$before" != "$text" ] || fail "$4: its place is not in $1 any more: plant it anew"$'\n'"$2"
    text=${text#"$before$2"}
    [ "${text%%"$2"*}" = "$text" ] || fail "$4: its place is in $1 more than once"$'\n'"$2"
    printf '%s' "$before$3$text" >"$1"
}

plant_all() {
    local index name bug to
    for index in "${!edit_bug[@]}"; do
        name=${edit_bug[$index]}
        bug="crate::is_planted(\"$name\")"
        to=${edit_to[$index]%$'\n'}
        replace_once "$NEXT/${edit_file[$index]}" "${edit_from[$index]%$'\n'}" \
            "${to//BUG/"$bug"}" "$name"
    done
    # The commands are a crate of their own.
    tee -a "$NEXT/src/lib.rs" >>"$NEXT/src/main.rs" <<'RUST'

pub(crate) fn is_planted(name: &str) -> bool {
    static PLANTED: std::sync::LazyLock<Option<String>> =
        std::sync::LazyLock::new(|| std::env::var("DESKBRIDGE_PLANT").ok());
    PLANTED.as_deref() == Some(name)
}
RUST
    # What the tests start gets the bug that they were given.
    local file passed='.envs(std::env::vars_os().filter(|(name, _)| name == "DESKBRIDGE_PLANT"))'
    for file in tests/it/support/bridge/run.rs tests/it/sending.rs; do
        grep -qF '.env_clear()' "$NEXT/$file" || fail "$file: what it starts would not get the bug"
        sed -i "s/\.env_clear()/&$passed/" "$NEXT/$file"
    done
}

build() {
    [ -e "$CARGO_TARGET_DIR/debug" ] || [ ! -d target/debug ] || borrow_dependencies
    local said
    said=$(cd "$TREE" && cargo test --locked --features failpoints --lib --test it --no-run 2>&1) \
        || fail "the copy with the bugs cannot be built:"$'\n'"$said"
    unit=$CARGO_TARGET_DIR/${said#*'src/lib.rs ('}
    unit=${unit%%')'*}
    it=${said#*'tests/it/main.rs ('}
    it=${it%%')'*}
    unit=$(binary "${unit#"$CARGO_TARGET_DIR/"}") it=$(binary "$it")
}

# What is built already of other people's crates need not be built again; of ours nothing is shared.
borrow_dependencies() {
    mkdir -p "$CARGO_TARGET_DIR/debug"
    cp -al target/debug/{deps,build} "$CARGO_TARGET_DIR/debug/"
    cp -a target/debug/.fingerprint "$CARGO_TARGET_DIR/debug/"
    rm -rf "$CARGO_TARGET_DIR"/debug/{deps/{,lib}deskbridge-*,deps/it-*,deps/bridge-*,.fingerprint/deskbridge-*}
}

binary() {
    case $1 in
        /*) echo "$1" ;;
        *) echo "$TREE/$1" ;;
    esac
}

# --- runs ---

run_tests() { # BUG-or-empty BINARY NAME ...
    local bug=$1 binary=$2
    shift 2
    cd "$TREE"
    env ${bug:+DESKBRIDGE_PLANT="$bug"} timeout "$SECONDS_MAX" "$binary" --exact "$@" 2>&1
}

# Without a bug every one of them passes, and there is every one of them.
check_sound() { # KIND BINARY
    local kind=$1 binary=$2 wanted log
    mapfile -t wanted < <(for name in "${chosen[@]}"; do printf '%s' "${tests[$name]}"; done \
        | sed -n "s/^$kind //p" | sort -u)
    [ ${#wanted[@]} -gt 0 ] || return 0
    log=$HOME_DIR/sound-$kind.log
    run_tests '' "$binary" "${wanted[@]}" >"$log" \
        || { tail -40 "$log"; fail "without a bug they do not all pass"; }
    grep -q "^test result: ok. ${#wanted[@]} passed" "$log" \
        || fail "of ${#wanted[@]} $kind tests not all exist: $(grep '^test result' "$log")"
}

# Writes `NAME -> caught by TEST` or why not.
try_bug() { # NAME
    local name=$1 kind test log status
    while read -r kind test; do
        log=$HOME_DIR/$name.log
        status=0
        run_tests "$name" "${!kind}" "$test" >"$log" || status=$?
        if [ $status = 101 ] && grep -q "^test $test ... FAILED" "$log"; then
            echo "$name -> caught by $test" >"$HOME_DIR/$name.verdict"
        else
            echo "$name -> NOT CAUGHT by $test (exit $status, $log)" >"$HOME_DIR/$name.verdict"
            return 1
        fi
    done <<<"${tests[$name]%$'\n'}"
}

read_table
chosen=("${@:-${names[@]}}")
for name in "${chosen[@]}"; do
    [ -n "${tests[$name]:-}" ] || fail "$name has no test"
done
copy_source
plant_all
take_over
[ "${PLANT_ONLY:-}" != source ] || exit 0
build
(check_sound unit "$unit")
(check_sound it "$it")
rm -f "$HOME_DIR"/*.verdict
for name in "${chosen[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$AT_ONCE" ]; do wait -n || true; done
    try_bug "$name" &
done
wait || true

caught=0
for name in "${chosen[@]}"; do
    verdict=$(cat "$HOME_DIR/$name.verdict")
    printf '%-26s %s\n' "$name" "${what[$name]}"
    printf '%-26s %s\n' '' "${verdict#*-> }"
    case $verdict in *"NOT CAUGHT"*) ;; *) caught=$((caught + 1)) ;; esac
done
echo
echo "$caught of ${#chosen[@]} planted bugs caught"
[ "$caught" = ${#chosen[@]} ] || exit 1
