//! Page number to page: a radix tree of shared nodes, copied on write.
//!
//! A node that only this tree reaches is changed in place; a shared one is copied first. So a tree that was
//! cloned is a frozen state, and cloning costs one reference.

use std::sync::Arc;

use super::Page;
use crate::base::PageNo;

const BITS: u32 = 6;
const FANOUT: usize = 1 << BITS;

#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nodes live behind an Arc each; half a KiB of slack per inner node"
)]
enum Node {
    Inner([Option<Arc<Node>>; FANOUT]),
    Leaf([Option<Page>; FANOUT]),
}

impl Node {
    fn empty(level: u32) -> Self {
        match level {
            0 => Self::Leaf([const { None }; FANOUT]),
            _ => Self::Inner([const { None }; FANOUT]),
        }
    }
}

/// The pages of one version.
#[derive(Clone)]
pub(super) struct Tree {
    /// The level of the root; leaves are at level 0.
    level: u32,
    root: Arc<Node>,
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { level: 0, root: Arc::new(Node::empty(0)) }
    }

    pub(super) fn get(&self, no: PageNo) -> Option<&Page> {
        let key = no.0.checked_sub(1)?;
        if u64::from(key) >= width(self.level + 1) {
            return None;
        }
        let mut node = &self.root;
        let mut level = self.level;
        loop {
            match &**node {
                Node::Leaf(pages) => return pages.get(slot(key, 0))?.as_ref(),
                Node::Inner(children) => node = children.get(slot(key, level))?.as_ref()?,
            }
            level = level.saturating_sub(1);
        }
    }

    pub(super) fn set(&mut self, no: PageNo, page: Page) {
        let Some(key) = no.0.checked_sub(1) else { return };
        while u64::from(key) >= width(self.level + 1) {
            let below = std::mem::replace(&mut self.root, Arc::new(Node::empty(self.level + 1)));
            self.level += 1;
            if let Node::Inner(children) = Arc::make_mut(&mut self.root) {
                children[0] = Some(below);
            }
        }
        insert(&mut self.root, self.level, key, page);
    }

    /// Removes every page above `n_pages`.
    pub(super) fn truncate(&mut self, n_pages: u32) {
        cut(&mut self.root, self.level, u64::from(n_pages));
        while self.level > 0 && u64::from(n_pages) <= width(self.level) {
            let first = match &*self.root {
                Node::Inner(children) => children.first().cloned().flatten(),
                Node::Leaf(_) => None,
            };
            self.level -= 1;
            self.root = first.unwrap_or_else(|| Arc::new(Node::empty(self.level)));
        }
    }

    /// Drops the leaf with this page, and with it the pages beside it, if `no` is its last one.
    pub(super) fn drop_leaf_ending_at(&mut self, no: PageNo) {
        let Some(key) = no.0.checked_sub(1) else { return };
        let ends = slot(key, 0) == FANOUT - 1;
        if ends && self.level > 0 && u64::from(key) < width(self.level + 1) {
            drop_leaf(&mut self.root, self.level, key);
        }
    }

    /// How many pages of this tree are not those of `other`, counted until there are `limit`.
    pub(super) fn count_beside(&self, other: &Self, limit: usize) -> usize {
        let (mut mine, mut theirs) = (Some(&self.root), Some(&other.root));
        let mut level = self.level;
        // What lies beyond the lower one's reach is beside it.
        let mut found = 0;
        while level > other.level {
            found += beyond_first(mine, limit.saturating_sub(found));
            (mine, level) = (first_child(mine), level.saturating_sub(1));
        }
        for _ in level..other.level {
            theirs = first_child(theirs);
        }
        found + mine.map_or(0, |node| count_beside(node, theirs, limit.saturating_sub(found)))
    }

    /// How many pages are present.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        fn of(node: &Node) -> usize {
            match node {
                Node::Leaf(pages) => pages.iter().flatten().count(),
                Node::Inner(children) => children.iter().flatten().map(|child| of(child)).sum(),
            }
        }
        of(&self.root)
    }

    /// Whether both are the same tree by reference, hence of the same content.
    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }
}

/// How many keys one slot of a node at `level` spans.
fn width(level: u32) -> u64 {
    1 << (BITS * level)
}

fn slot(key: u32, level: u32) -> usize {
    (key >> (BITS * level)) as usize % FANOUT
}

fn insert(node: &mut Arc<Node>, level: u32, key: u32, page: Page) {
    match Arc::make_mut(node) {
        Node::Leaf(pages) => {
            if let Some(place) = pages.get_mut(slot(key, 0)) {
                *place = Some(page);
            }
        }
        Node::Inner(children) => {
            if let Some(place) = children.get_mut(slot(key, level)) {
                let below = level.saturating_sub(1);
                insert(place.get_or_insert_with(|| Arc::new(Node::empty(below))), below, key, page);
            }
        }
    }
}

fn drop_leaf(node: &mut Arc<Node>, level: u32, key: u32) {
    if let Node::Inner(children) = Arc::make_mut(node)
        && let Some(place) = children.get_mut(slot(key, level))
    {
        match place {
            Some(child) if level > 1 => drop_leaf(child, level - 1, key),
            leaf => *leaf = None,
        }
    }
}

fn first_child(node: Option<&Arc<Node>>) -> Option<&Arc<Node>> {
    match &**node? {
        Node::Inner(children) => children.first()?.as_ref(),
        Node::Leaf(_) => None,
    }
}

/// The pages under all children but the first, until there are `limit`.
fn beyond_first(node: Option<&Arc<Node>>, limit: usize) -> usize {
    let Some(Node::Inner(children)) = node.map(|node| &**node) else { return 0 };
    let rest = children.iter().skip(1).flatten();
    rest.fold(0, |found, child| found + count_beside(child, None, limit.saturating_sub(found)))
}

/// How many pages under `mine` are not those at the same place under `theirs`, until there are `limit`.
fn count_beside(mine: &Arc<Node>, theirs: Option<&Arc<Node>>, limit: usize) -> usize {
    if limit == 0 || theirs.is_some_and(|theirs| Arc::ptr_eq(mine, theirs)) {
        return 0;
    }
    match (&**mine, theirs.map(|node| &**node)) {
        (Node::Leaf(pages), Some(Node::Leaf(others))) => {
            let same =
                |other: &Option<Page>, page: &Page| other.as_ref().is_some_and(|other| other.is_same(page));
            let pairs = pages.iter().zip(others);
            pairs.filter(|(page, other)| page.as_ref().is_some_and(|page| !same(other, page))).count()
        }
        (Node::Leaf(pages), _) => pages.iter().flatten().count(),
        (Node::Inner(children), theirs) => {
            let mut found = 0;
            for (at, child) in children.iter().enumerate() {
                let Some(child) = child else { continue };
                let other = match theirs {
                    Some(Node::Inner(others)) => others.get(at).and_then(Option::as_ref),
                    _ => None,
                };
                found += count_beside(child, other, limit.saturating_sub(found));
            }
            found
        }
    }
}

/// Keeps the first `keep` keys under `node`.
fn cut(node: &mut Arc<Node>, level: u32, keep: u64) {
    if keep >= width(level + 1) {
        return;
    }
    let starts = (0u64..).map(|at| at * width(level));
    match Arc::make_mut(node) {
        Node::Leaf(pages) => {
            for (place, _) in pages.iter_mut().zip(starts).filter(|(_, start)| *start >= keep) {
                *place = None;
            }
        }
        Node::Inner(children) => {
            for (place, start) in children.iter_mut().zip(starts) {
                if start >= keep {
                    *place = None;
                } else if let Some(child) = place {
                    cut(child, level.saturating_sub(1), keep - start);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::Tree;
    use crate::base::{PageNo, Prng};
    use crate::pages::Page;

    fn page(value: u64) -> Page {
        Page::from_slice(&value.to_le_bytes())
    }

    fn check(tree: &Tree, model: &BTreeMap<u32, Page>) {
        assert_eq!(tree.count(), model.len());
        for (no, page) in model {
            assert_eq!(tree.get(PageNo(*no)), Some(page), "page {no}");
        }
    }

    #[test]
    fn pages_that_only_one_of_two_trees_has_are_counted_whatever_their_heights() {
        for (seed, size) in [(1, 40), (2, 700), (3, 9000)] {
            let mut prng = Prng::new(seed);
            let mut old = Tree::new();
            for no in 1..=size {
                old.set(PageNo(no), page(no.into()));
            }
            let mut new = old.clone();
            assert_eq!(old.count_beside(&new, usize::MAX), 0);
            let changed: std::collections::BTreeSet<u32> =
                (0..size / 5).map(|_| 1 + u32::try_from(prng.below(size.into())).unwrap()).collect();
            for no in &changed {
                new.set(PageNo(*no), page(0));
            }
            assert_eq!(old.count_beside(&new, usize::MAX), changed.len());
            assert!(old.count_beside(&new, 3) >= 3, "counted up to the limit");
            // Higher, and lower.
            new.set(PageNo(size * 70), page(0));
            assert_eq!(old.count_beside(&new, usize::MAX), changed.len());
            assert_eq!(new.count_beside(&old, usize::MAX), changed.len() + 1);
            new.truncate(10);
            let kept = (1..=10).filter(|no| !changed.contains(no)).count();
            assert_eq!(old.count_beside(&new, usize::MAX), size as usize - kept);
        }
    }

    #[test]
    fn random_changes_equal_a_map_and_clones_stay_frozen() {
        let mut prng = Prng::new(7);
        let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
        let mut frozen = Vec::new();
        for step in 0..4000u64 {
            let reach = [60, 70, 5000, 300_000][usize::try_from(prng.below(4)).unwrap()];
            let no = u32::try_from(prng.below(reach)).unwrap() + 1;
            if prng.below(40) == 0 {
                tree.truncate(no);
                model.retain(|key, _| *key <= no);
            } else {
                tree.set(PageNo(no), page(step));
                model.insert(no, page(step));
            }
            assert_eq!(tree.get(PageNo(no + 1)), model.get(&(no + 1)));
            if prng.below(200) == 0 {
                frozen.push((tree.clone(), model.clone()));
            }
        }
        check(&tree, &model);
        assert!(frozen.len() > 5);
        frozen.iter().for_each(|(tree, model)| check(tree, model));
    }

    #[test]
    fn leaves_that_are_dropped_one_after_another_leave_all_others_and_every_clone() {
        for size in [1, 63, 64, 65, 128, 700, 9000] {
            let (mut tree, mut model) = (Tree::new(), BTreeMap::new());
            for no in 1..=size {
                tree.set(PageNo(no), page(no.into()));
                model.insert(no, page(no.into()));
            }
            let (frozen, whole) = (tree.clone(), model.clone());
            for no in 0..=size + 70 {
                tree.drop_leaf_ending_at(PageNo(no));
                // A tree of one leaf stays.
                if no % 64 == 0 && size > 64 {
                    model.retain(|other, _| *other > no);
                }
                assert_eq!(tree.count(), model.len(), "page {no} of {size}");
            }
            check(&tree, &model);
            check(&frozen, &whole);
        }
    }

    #[test]
    fn the_highest_page_number_fits_and_page_zero_is_nothing() {
        let mut tree = Tree::new();
        tree.set(PageNo(u32::MAX), page(1));
        tree.set(PageNo(1), page(2));
        tree.set(PageNo(0), page(3));
        assert_eq!(tree.get(PageNo(u32::MAX)), Some(&page(1)));
        assert_eq!(tree.get(PageNo(0)), None);
        assert_eq!(tree.count(), 2);
        tree.truncate(1);
        assert_eq!((tree.count(), tree.level), (1, 0));
    }

    #[test]
    fn an_unshared_tree_is_changed_in_place() {
        let mut tree = Tree::new();
        tree.set(PageNo(5000), page(1));
        let before = std::sync::Arc::as_ptr(&tree.root);
        tree.set(PageNo(5001), page(2));
        assert_eq!(std::sync::Arc::as_ptr(&tree.root), before);
        let kept = tree.clone();
        tree.set(PageNo(5001), page(3));
        assert_eq!(kept.get(PageNo(5001)), Some(&page(2)));
        assert!(!kept.is_same(&tree));
    }
}
