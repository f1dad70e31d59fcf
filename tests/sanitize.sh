#!/usr/bin/env bash
# Runs the tests of the C code under the address and undefined-behaviour sanitizers; any report fails.
#   tests/sanitize.sh PYTHON [PYTEST ARGUMENT ...]     (PYTHON has the project's dependencies, see `make sanitize`)
# The build is a copy of the tree in build/sanitize-tree, so the ordinary in-place build stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
python=$(command -v "$1")
python=$(cd "$(dirname "$python")" && pwd)/$(basename "$python")
shift

tree=$PWD/build/sanitize-tree
reports=$tree/reports
mkdir -p "$tree"
for part in cython_ext spectral_alloc benchmarks tests tools demos docs setup.py pyproject.toml README.md LICENSE; do
    rm -rf "${tree:?}/$part"
    cp -a "$part" "$tree/"
done
rm -rf "$tree"/spectral_alloc/*.so "$reports"
mkdir "$reports"
cd "$tree"
SPECTRAL_ALLOC_SANITIZE=1 "$python" setup.py --quiet build_ext --inplace

# A child process may die of a report that its test takes for another failure, so reports go to files, counted at the end.
# Python keeps objects at exit, so leaks are not looked for; PYTHONMALLOC makes every object a block that asan knows.
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1:log_path=$reports/asan
export UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1:log_path=$reports/ubsan
export PYTHONMALLOC=malloc PYTHONPATH=$tree SPECTRAL_ALLOC_SANITIZED=1
# The C++ library goes along so that asan finds the real __cxa_throw when an extension loads it later.
preload=$(gcc -print-file-name=libasan.so):$(gcc -print-file-name=libubsan.so):$(gcc -print-file-name=libstdc++.so)

tests=(
    tests/test_native.py tests/test_spectrum.py tests/test_crc32c.py tests/test_shuffle.py tests/test_frame*.py tests/test_formula*.py
    tests/test_closure*.py tests/test_set_order.py tests/test_sizer.py tests/test_serializer.py tests/test_graph_stream.py tests/test_express.py tests/test_passage.py tests/test_shadows.py tests/test_regrow*.py
    tests/test_dict_behaviour.py tests/test_garbage_collection.py tests/test_governor.py tests/test_residency.py tests/test_heat.py
    tests/test_memory.py tests/test_memory_disk.py tests/test_generated_blocks.py tests/test_memory_threads.py tests/test_heap_placement.py tests/test_parity.py
    tests/test_generator.py tests/test_generative_space.py tests/test_permutation.py tests/test_space_edits.py
    tests/test_foreign_code.py tests/test_durable_edits.py tests/test_durable_writes.py tests/test_memory_arguments.py tests/test_memory_limit.py
    tests/test_edit_log*.py tests/test_edit_file.py tests/test_page_store.py tests/test_touch.py tests/test_touch_stress.py tests/foreign tests/stateful
)
[ $# = 0 ] || tests=("$@")

# Not those that fault on purpose, which the sanitizer reports, nor those that bound resident memory, of which it takes its own.
unfit="not real_fault and not a_sum_stays_within_the_limit and not test_regrow_million"

status=0
LD_PRELOAD=$preload "$python" -m pytest -q -p no:cacheprovider -k "$unfit" "${tests[@]}" || status=$?
for report in "$reports"/*; do
    [ -e "$report" ] || continue
    echo "sanitizer report: $report" >&2
    cat "$report" >&2
    status=1
done
if [ $status = 0 ]; then echo "sanitizers: no report"; fi
exit $status
