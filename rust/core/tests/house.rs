//! The order of the modules: a file imports only what lies below it, and no files import each other in a circle.
//!
//! The sources are read as text. `use` declarations and paths that start with `crate`, `super`, `self` or a child
//! module count as imports. An import counts for the file that defines the name, so re-exports are followed. Unit tests
//! may import anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The layers of `langptune-core` from the lowest to the highest, each with its files.
///
/// A file may import files of lower layers, and in its own layer those of its own folder.
const CORE: &[&[&str]] = &[
    &["distributions", "error", "random"],
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
    &[
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
    &["lib"],
];

/// The layers of the extension: the domains know the boundary and not each other.
const EXTENSION: &[&[&str]] = &[&["boundary"], &["metrics", "packing", "ranking", "statistics"], &["lib"]];

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

/// The files of a crate, such as `filter/items`, with their sources.
fn read(folder: &str) -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut sources = BTreeMap::new();
    let mut folders = vec![folder.clone()];
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.with_extension("").strip_prefix(&folder).unwrap().to_string_lossy().replace('\\', "/");
                sources.insert(name, fs::read_to_string(&path).unwrap());
            }
        }
    }
    sources
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

/// The imports between files: the importing file, the imported file, and the path as it is written.
fn edges(sources: &BTreeMap<String, String>) -> BTreeSet<(String, String, String)> {
    let module_of = |file: &str| match file {
        "lib" => Vec::new(),
        _ => file.split('/').map(str::to_owned).collect::<Vec<String>>(),
    };
    let modules: BTreeMap<Vec<String>, &String> = sources.keys().map(|file| (module_of(file), file)).collect();
    let mut found = Vec::new();
    let mut aliases = BTreeMap::new();
    for (file, source) in sources {
        let module = module_of(file);
        let is_child =
            |module: &&Vec<String>| module.len() == module_of(file).len() + 1 && module.starts_with(&module_of(file));
        let children: Vec<&str> = modules.keys().filter(is_child).map(|child| &*child[child.len() - 1]).collect();
        for Import { inner, path, alias, .. } in imports(source, &children) {
            let mut absolute = [&module[..], &inner].concat();
            let mut rest = path.iter().peekable();
            match &*path[0] {
                "crate" => absolute.clear(),
                "self" | "super" => {}
                first if inner.is_empty() && children.contains(&first) => {}
                _ => continue,
            }
            while let Some(segment) = rest.next_if(|segment| is_inside(segment)) {
                if segment == "super" {
                    absolute.pop();
                }
            }
            absolute.extend(rest.cloned());
            if let Some(alias) = alias.filter(|_| inner.is_empty()) {
                aliases.insert([&module[..], &[alias]].concat(), absolute.clone());
            }
            found.push((file.clone(), absolute, path.join("::")));
        }
    }
    let defined_in = |mut path: Vec<String>| {
        for _ in 0..9 {
            let Some(len) = (1..=path.len())
                .find(|len| aliases.contains_key(&path[..*len]) && !modules.contains_key(&path[..*len]))
            else {
                break;
            };
            path = [&aliases[&path[..len]], &path[len..]].concat();
        }
        let len =
            (0..=path.len()).rev().find(|len| modules.contains_key(&path[..*len])).expect("every crate has a root");
        modules[&path[..len]].clone()
    };
    let edges = found.into_iter().map(|(from, path, written)| (from, defined_in(path), written));
    edges.filter(|(from, to, _)| from != to).collect()
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

struct Import {
    /// The modules within the file that the import stands in.
    inner: Vec<String>,
    path: Vec<String>,
    /// The name that a `use` gives to it.
    alias: Option<String>,
    is_use: bool,
}

fn is_inside(segment: &str) -> bool {
    ["crate", "self", "super"].contains(&segment)
}

/// The imports of a source without its unit tests.
fn imports(source: &str, children: &[&str]) -> Vec<Import> {
    let tokens = tokens(source);
    let token = |at: usize| tokens.get(at).map_or("", String::as_str);
    let mut imports = Vec::new();
    let mut open: Vec<Option<String>> = Vec::new(); // for each open brace, the module that it begins
    let mut at = 0;
    while at < tokens.len() {
        let inner = || open.iter().flatten().cloned().collect::<Vec<String>>();
        if token(at) == "mod" && token(at + 2) == "{" {
            if token(at + 1) == "tests" {
                break; // unit tests are at the end of a file
            }
            open.push(Some(token(at + 1).to_owned()));
            at += 3;
        } else if token(at) == "use" {
            let (mut start, mut trees) = (at + 1, Vec::new());
            use_tree(&tokens, &mut start, &mut Vec::new(), &mut trees);
            let found = trees.into_iter().map(|(path, alias)| Import { inner: inner(), path, alias, is_use: true });
            imports.extend(found);
            at = start;
        } else if token(at + 1) == "::"
            && token(at.wrapping_sub(1)) != "::"
            && token(at.wrapping_sub(1)) != "in"
            && (is_inside(token(at)) || children.contains(&token(at)))
        {
            let mut path = vec![token(at).to_owned()];
            while token(at + 1) == "::" && is_name(token(at + 2)) {
                path.push(token(at + 2).to_owned());
                at += 2;
            }
            imports.push(Import { inner: inner(), path, alias: None, is_use: false });
            at += 1;
        } else {
            match token(at) {
                "{" => open.push(None),
                "}" => drop(open.pop()),
                _ => {}
            }
            at += 1;
        }
    }
    imports
}

/// Reads the paths of a `use` from `at` on, with the names they give.
fn use_tree(
    tokens: &[String],
    at: &mut usize,
    prefix: &mut Vec<String>,
    found: &mut Vec<(Vec<String>, Option<String>)>,
) {
    let depth = prefix.len();
    loop {
        match &*tokens[*at] {
            "{" => {
                *at += 1;
                while tokens[*at] != "}" {
                    use_tree(tokens, at, prefix, found);
                    *at += usize::from(tokens[*at] == ",");
                }
                *at += 1;
                break;
            }
            "*" => {
                *at += 1;
                found.push((prefix.clone(), None));
                break;
            }
            "::" => *at += 1,
            segment => {
                if segment != "self" || prefix.is_empty() {
                    prefix.push(segment.to_owned());
                }
                *at += 1;
                if tokens[*at] == "as" {
                    found.push((prefix.clone(), Some(tokens[*at + 1].clone())));
                    *at += 2;
                    break;
                }
                if tokens[*at] != "::" {
                    found.push((prefix.clone(), prefix.last().cloned()));
                    break;
                }
            }
        }
    }
    prefix.truncate(depth);
}

fn is_name(token: &str) -> bool {
    token.starts_with(|first: char| first.is_alphanumeric() || first == '_')
}

/// Names, `::` and single signs, without comments, strings and white space.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if first == '"' {
            end_of_string(rest)
        } else if rest.starts_with("'\\") {
            2 + rest[3..].find('\'').expect("a character ends") + 2
        } else if first == '\'' && rest.chars().nth(2) == Some('\'') {
            rest.char_indices().nth(3).map_or(rest.len(), |(at, _)| at)
        } else {
            let is_part = |part: char| part.is_alphanumeric() || part == '_';
            let len = match rest.find(|part| !is_part(part)).unwrap_or(rest.len()) {
                0 if rest.starts_with("::") => 2,
                0 => first.len_utf8(),
                name => name,
            };
            if !first.is_whitespace() {
                tokens.push(rest[..len].to_owned());
            }
            len
        };
        rest = &rest[len..];
    }
    tokens
}

fn end_of_string(rest: &str) -> usize {
    let mut is_escaped = false;
    let end = rest[1..].find(|sign| {
        let ends = sign == '"' && !is_escaped;
        is_escaped = sign == '\\' && !is_escaped;
        ends
    });
    end.expect("a string ends") + 2
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
