//! What browsers say about the page that a request comes from
//! ([Fetch Metadata](https://www.w3.org/TR/fetch-metadata/)). A page cannot set these headers.

/// `Sec-Fetch-Site`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum FetchSite {
    /// It is missing. Browsers send it only under TLS and to loopback addresses.
    #[default]
    Missing,
    /// The page has the origin of the target, or there is no page: a person entered the address.
    Own,
    /// The page has another origin, or the value is unknown.
    Other,
}

impl FetchSite {
    pub(super) fn parse(value: &[u8]) -> Self {
        match value {
            b"same-origin" | b"none" => Self::Own,
            _ => Self::Other,
        }
    }
}
