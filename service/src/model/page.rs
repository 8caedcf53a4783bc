//! Pages of lists, newest first, with a token that is bound to its filters.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Error, Result};

/// How many items a page holds when nobody says.
const DEFAULT_SIZE: u32 = 50;

/// Where an item stands in a list: by group first, which lists without groups leave empty, then by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What the list is grouped by, such as the month.
    pub group: String,
    /// The item's id.
    pub id: Uuid,
}

/// Where a page begins and how long it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Only items that come after this place.
    pub after: Option<Place>,
    /// Items at most.
    pub size: u32,
    filters: [u8; 8],
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Paged<T> {
    /// The items.
    pub items: Vec<T>,
    /// Token of the next page; empty on the last.
    pub next: String,
}

impl Page {
    /// Reads a page request. `filters` is everything else that was asked for: a token made under other filters is
    /// refused, because going on with it would skip or repeat items.
    pub fn parse(size: Option<i32>, token: Option<&str>, filters: &str) -> Result<Page> {
        let digest = Sha256::digest(filters.as_bytes());
        let filters: [u8; 8] = std::array::from_fn(|at| digest[at]);
        let after = match token.filter(|token| !token.is_empty()) {
            None => None,
            Some(token) => Some(read(token, filters).ok_or_else(|| {
                Error::invalid("page_token", "must be the next_page_token of a page with the same filters")
            })?),
        };
        Ok(Page { after, size: size.map_or(DEFAULT_SIZE, |size| size.clamp(1, 200) as u32), filters })
    }

    /// Makes a page of what was read: one item more than [`Page::size`] says whether there is another page.
    pub fn cut<T>(&self, items: Vec<T>, place: impl Fn(&T) -> Place) -> Paged<T> {
        self.cut_searched(items, place, None)
    }

    /// The same of what was looked for among other things: `reached` is how far a search came that ended before it had
    /// looked at all.
    pub fn cut_searched<T>(&self, mut items: Vec<T>, place: impl Fn(&T) -> Place, reached: Option<Place>) -> Paged<T> {
        let more = items.len() > self.size as usize;
        items.truncate(self.size as usize);
        let next = if more { items.last().map(place) } else { reached };
        Paged { items, next: next.map(|place| self.token(&place)).unwrap_or_default() }
    }

    fn token(&self, after: &Place) -> String {
        let mut token = self.filters.to_vec();
        token.extend_from_slice(after.id.as_bytes());
        token.extend_from_slice(after.group.as_bytes());
        URL_SAFE_NO_PAD.encode(token)
    }
}

fn read(token: &str, filters: [u8; 8]) -> Option<Place> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (bound, place) = bytes.split_at_checked(8)?;
    let (id, group) = place.split_at_checked(16)?;
    let group = String::from_utf8(group.to_vec()).ok()?;
    (bound == filters).then_some(Place { group, id: Uuid::from_slice(id).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_continues_its_own_list_and_no_other() {
        let ids: Vec<Uuid> = (0..4).map(|_| Uuid::now_v7()).collect();
        let page = Page::parse(Some(3), None, "month=2024-01").unwrap();
        let place = |id: &Uuid| Place { group: "2024-01".to_owned(), id: *id };
        let cut = page.cut(ids.clone(), place);
        assert_eq!(cut.items.len(), 3);
        let next = Page::parse(Some(3), Some(&cut.next), "month=2024-01").unwrap();
        assert_eq!(next.after, Some(place(&ids[2])));
        assert!(Page::parse(Some(3), Some(&cut.next), "month=2024-02").is_err());
        assert!(Page::parse(Some(3), Some("nonsense"), "").is_err());
        assert!(page.cut(ids[..3].to_vec(), place).next.is_empty());
        // A search that ended early goes on where it ended, unless the page is full before that.
        let after = |items: &[Uuid]| {
            let cut = page.cut_searched(items.to_vec(), place, Some(place(&ids[3])));
            Page::parse(Some(3), Some(&cut.next), "month=2024-01").unwrap().after
        };
        assert_eq!((after(&[]), after(&ids[..1])), (Some(place(&ids[3])), Some(place(&ids[3]))));
        assert_eq!(after(&ids), Some(place(&ids[2])));
    }
}
