//! The order of the modules: a file imports only what lies below it, and no files import each other in a circle.
//!
//! The sources are read as text. `use` declarations and paths that start with `crate`, `super`, `self` or a child
//! module count as imports. An import counts for the file that defines the name, so re-exports are followed. Unit tests
//! may import anything.

#[path = "house/imports.rs"]
mod imports;

use std::collections::{BTreeMap, BTreeSet};

use imports::{Import, edges, imports, is_inside, read};

/// The layers of `langptune-core` from the lowest to the highest, each with its files.
///
/// A file may import files of lower layers, and in its own layer those of its own folder.
const CORE: &[&[&str]] = &[
    &["distributions", "error", "log_sum", "random"],
    &["interrupt"],
    &["matrix", "pool", "ragged"],
    &[
        "cpu",
        "cpu/amx",
        "metrics",
        "packing",
        "packing/balance",
        "packing/best_fit",
        "packing/collate",
        "packing/together",
        "statistics",
        "statistics/bootstrap",
        "statistics/holm",
        "statistics/mean",
        "statistics/permutation",
        "statistics/samples",
        "statistics/t_test",
    ],
    &["kernel"],
    &["simd", "simd/neon", "simd/vector", "simd/x86"],
    &[
        "decoding",
        "decoding/attention",
        "decoding/cache",
        "decoding/choice",
        "decoding/elementwise",
        "decoding/output",
        "decoding/product",
        "decoding/segments",
        "exact",
        "exact/accumulator",
        "exact/neon",
        "exact/tiles",
        "exact/x86",
        "filter",
        "filter/amx",
        "filter/bound",
        "filter/eight_bits",
        "filter/items",
        "filter/layout",
        "filter/precision",
        "filter/products",
        "filter/products/avx512",
        "filter/products/neon",
        "filter/products/portable",
        "filter/products/registers",
        "filter/products/x86",
        "filter/rounding",
        "filter/sift",
        "filter/tiles",
        "filter/users",
    ],
    &["index"],
    &[
        "fold",
        "fold/block",
        "fold/delivery",
        "fold/excluded",
        "fold/pass",
        "fold/precision",
        "fold/scratch",
        "fold/sifting",
        "fold/state",
    ],
    &["rank", "search"],
    &["target_scores"],
    &["lib"],
];

/// The layers of the extension: the domains know the boundary and not each other.
const EXTENSION: &[&[&str]] = &[&["boundary"], &["decoding", "metrics", "packing", "ranking", "statistics"], &["lib"]];

/// The crates that the extension may import.
const CRATES_OF_THE_EXTENSION: &[&str] = &["std", "langptune_core", "numpy", "pyo3"];

#[test]
#[cfg_attr(miri, ignore = "it only reads files")]
fn the_core_is_in_order() {
    let faults = faults(&read("src"), CORE);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

#[test]
#[cfg_attr(miri, ignore = "it only reads files")]
fn the_extension_is_in_order() {
    let sources = read("../python/src");
    let faults = faults(&sources, EXTENSION);
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    for (file, source) in &sources {
        for Import { path, .. } in imports(source, &[]).iter().filter(|import| import.is_use) {
            let is_known = is_inside(&path[0]) || sources.contains_key(&path[0]);
            assert!(
                is_known || CRATES_OF_THE_EXTENSION.contains(&&*path[0]),
                "{file}.rs imports {}: the extension only converts; move this work to langptune-core",
                path.join("::")
            );
        }
    }
}

/// What is wrong with the imports of some files, a sentence for each fault.
fn faults(sources: &BTreeMap<String, String>, layers: &[&[&str]]) -> Vec<String> {
    let layer_of = |file: &str| layers.iter().position(|layer| layer.contains(&file));
    let mut faults = Vec::new();
    for file in sources.keys().filter(|file| layer_of(file).is_none()) {
        faults.push(format!("{file}.rs is in no layer: add it to its layer in tests/house.rs"));
    }
    for file in layers.iter().copied().flatten().filter(|file| !sources.contains_key(**file)) {
        faults.push(format!("There is no {file}.rs: remove it from tests/house.rs"));
    }
    let edges = edges(sources);
    for (from, to, path) in &edges {
        let folder = |file: &str| file.split('/').next().map(str::to_owned);
        match (layer_of(from), layer_of(to)) {
            (Some(own), Some(other)) if other > own => faults.push(format!(
                "{from}.rs imports {path} from {to}.rs, which is in a higher layer: move what {from}.rs needs to a lower \
                 file, or move {from}.rs up in tests/house.rs"
            )),
            (Some(own), Some(other)) if other == own && folder(from) != folder(to) => faults.push(format!(
                "{from}.rs imports {path} from {to}.rs, which is beside it: move what both need to a lower layer"
            )),
            _ => {}
        }
    }
    if let Some(circle) = circle(&edges) {
        faults.push(format!(
            "{} import each other in a circle: move what they share to a file below them",
            circle.join(" -> ")
        ));
    }
    faults
}

/// The files of a circle of imports, the first one again at the end.
fn circle(edges: &BTreeSet<(String, String, String)>) -> Option<Vec<String>> {
    fn walk(edges: &BTreeSet<(String, String, String)>, trail: &mut Vec<String>, done: &mut BTreeSet<String>) -> bool {
        let last = trail[trail.len() - 1].clone();
        for (_, to, _) in edges.iter().filter(|(from, ..)| *from == last) {
            if let Some(start) = trail.iter().position(|file| file == to) {
                trail.drain(..start);
                trail.push(to.clone());
                return true;
            }
            trail.push(to.clone());
            if !done.contains(to) && walk(edges, trail, done) {
                return true;
            }
            trail.pop();
        }
        done.insert(last);
        false
    }
    let mut done = BTreeSet::new();
    edges.iter().find_map(|(from, ..)| {
        let mut trail = vec![from.clone()];
        walk(edges, &mut trail, &mut done).then_some(trail)
    })
}

const MADE_UP: &[&[&str]] = &[&["low"], &["left", "left/part", "right"], &["high"], &["lib"]];

/// The faults of made-up files, in the layers of `MADE_UP`, beside files without imports.
fn faults_of(files: &[(&str, &str)]) -> String {
    let empty = MADE_UP.iter().copied().flatten().map(|file| ((*file).to_owned(), String::new()));
    let mut sources: BTreeMap<String, String> = empty.collect();
    sources.insert("lib".into(), "pub use high::Tower; pub use low::{Cellar, Error as Fault};".into());
    sources.extend(files.iter().map(|(file, source)| ((*file).to_owned(), (*source).to_owned())));
    faults(&sources, MADE_UP).join("\n")
}

#[test]
fn imports_from_below_are_in_order() {
    assert_eq!(
        faults_of(&[
            ("high", "use crate::{Cellar, left::part::Brick, right};"),
            ("left", "mod part; use part::Brick;")
        ]),
        ""
    );
    assert_eq!(
        faults_of(&[("left", "use part::Brick; pub use crate::Fault;"), ("left/part", "use crate::low::Cellar;")]),
        ""
    );
}

#[test]
fn an_import_from_above_is_a_fault() {
    for source in [
        "use crate::high::Tower;",
        "use crate::{Fault, Tower};",
        "use super::high::{self, Tower as Castle};",
        "fn up() { crate::high::climb::<8>(); }",
        "mod inner { use super::super::Tower; }",
        "const ODD: (char, &str) = ('\"', \"\\\"//\"); use crate::Tower;",
    ] {
        let faults = faults_of(&[("low", source)]);
        assert!(
            faults.starts_with("low.rs imports ") && faults.contains("high.rs, which is in a higher layer"),
            "{source} {faults}"
        );
    }
}

#[test]
fn comments_strings_and_unit_tests_import_nothing() {
    let source = "//! See [`crate::high`].\nconst S: &str = \"crate::high::Tower\"; pub(in super::high) fn f<'a>() {}
        mod inner { use super::Own; }\n#[cfg(test)] mod tests { use crate::high::Tower; }";
    assert_eq!(faults_of(&[("low", source)]), "");
}

#[test]
fn an_import_from_beside_is_a_fault() {
    let faults = faults_of(&[("left/part", "use crate::right::Wall;")]);
    assert!(
        faults.starts_with("left/part.rs imports crate::right::Wall from right.rs, which is beside it"),
        "{faults}"
    );
}

#[test]
fn a_circle_is_a_fault_also_through_a_name_of_the_parent() {
    for part in ["use super::Door;", "use crate::left::Door;", "fn open() { super::door(); }"] {
        let faults = faults_of(&[("left", "mod part; use part::Brick; pub struct Door;"), ("left/part", part)]);
        assert!(faults.starts_with("left -> left/part -> left import each other in a circle"), "{part} {faults}");
    }
}

#[test]
fn a_file_without_a_layer_and_a_layer_without_its_file_are_faults() {
    let faults = faults_of(&[("attic", "")]);
    assert_eq!(faults, "attic.rs is in no layer: add it to its layer in tests/house.rs");
    let faults = self::faults(&BTreeMap::from([("low".into(), String::new())]), &[&["low", "gone"]]);
    assert_eq!(faults, ["There is no gone.rs: remove it from tests/house.rs"]);
}
