//! The imports between the files of a crate, read from their text.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The files of a crate, such as `filter/items`, with their sources.
pub fn read(folder: &str) -> BTreeMap<String, String> {
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

/// The imports between files: the importing file, the imported file, and the path as it is written.
pub fn edges(sources: &BTreeMap<String, String>) -> BTreeSet<(String, String, String)> {
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

/// A path that a source imports.
pub struct Import {
    /// The modules within the file that the import stands in.
    inner: Vec<String>,
    pub path: Vec<String>,
    /// The name that a `use` gives to it.
    alias: Option<String>,
    pub is_use: bool,
}

/// Whether a path that begins with this segment stays within its crate.
pub fn is_inside(segment: &str) -> bool {
    ["crate", "self", "super"].contains(&segment)
}

/// The imports of a source without its unit tests.
pub fn imports(source: &str, children: &[&str]) -> Vec<Import> {
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
