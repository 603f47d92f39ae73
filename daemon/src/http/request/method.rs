//! Methods, and sets of them.

use std::fmt;

/// The methods the daemon knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// `GET`
    Get,
    /// `HEAD`
    Head,
    /// `POST`
    Post,
    /// `PUT`
    Put,
    /// `PATCH`
    Patch,
    /// `DELETE`
    Delete,
    /// `OPTIONS`
    Options,
    /// `TRACE`
    Trace,
    /// `CONNECT`
    Connect,
    /// `QUERY`
    Query,
    /// Any other token: nobody knows it.
    Other,
}

impl Method {
    /// All methods that have a name, in the order in which `Allow` lists them.
    pub const NAMED: [Self; 10] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Patch,
        Self::Delete,
        Self::Options,
        Self::Trace,
        Self::Connect,
        Self::Query,
    ];

    /// The method as a request has it; empty for [`Method::Other`].
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Connect => "CONNECT",
            Self::Query => "QUERY",
            Self::Other => "",
        }
    }

    pub(super) fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            "TRACE" => Self::Trace,
            "CONNECT" => Self::Connect,
            "QUERY" => Self::Query,
            _ => Self::Other,
        }
    }
}

/// A set of methods. It is shown as `Allow` lists them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Methods(u16);

impl Methods {
    /// The set with one more method.
    #[must_use]
    pub const fn with(self, method: Method) -> Self {
        Self(self.0 | 1 << method as u16)
    }

    /// The methods of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether a method is in the set.
    #[must_use]
    pub const fn has(self, method: Method) -> bool {
        self.0 & 1 << method as u16 != 0
    }
}

impl FromIterator<Method> for Methods {
    fn from_iter<I: IntoIterator<Item = Method>>(methods: I) -> Self {
        methods.into_iter().fold(Self::default(), Self::with)
    }
}

impl fmt::Display for Methods {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let methods = Method::NAMED.into_iter().filter(|method| self.has(*method));
        for (index, method) in methods.enumerate() {
            f.write_str(if index > 0 { ", " } else { "" })?;
            f.write_str(method.name())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_methods_is_shown_as_allow_lists_them_whatever_order_they_came_in() {
        let methods: Methods = [Method::Options, Method::Delete, Method::Get, Method::Head].into_iter().collect();
        assert_eq!(methods.to_string(), "GET, HEAD, DELETE, OPTIONS");
        assert!(methods.has(Method::Head) && !methods.has(Method::Post));
        assert_eq!(Methods::default().to_string(), "");
    }

    #[test]
    fn every_method_is_read_by_the_name_that_it_has() {
        for method in Method::NAMED {
            assert_eq!(Method::from_token(method.name()), method);
        }
        assert_eq!(Method::from_token(""), Method::Other);
    }
}
