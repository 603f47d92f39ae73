//! The content of the configuration files that this crate writes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::layout::Layout;

/// The line appended to `postgresql.conf`. The path is relative to that file, so that the cluster can be moved. The
/// directive is not `include_if_exists`: without our settings the server would listen on TCP.
pub(crate) const INCLUDE_LINE: &str =
    "\n# Written by forebay at each start; change settings with ALTER SYSTEM.\ninclude '../forebay.conf'\n";

/// Content of `forebay.conf`. The last line for a setting counts, so `extra` overrides the lines above it.
///
/// With `shared_socket` the group of the socket's directory may connect as well as the account.
pub(crate) fn settings_text(layout: &Layout, tcp: bool, shared_socket: bool, extra: &[(String, String)]) -> Vec<u8> {
    let mut text = b"# Written by forebay at each start; changes here are lost.\n".to_vec();
    let listen = if tcp { "127.0.0.1" } else { "" };
    push(&mut text, "listen_addresses", listen.as_bytes());
    push(&mut text, "port", layout.port.to_string().as_bytes());
    push(&mut text, "unix_socket_directories", &list_item(&layout.socket_dir()));
    push(&mut text, "unix_socket_permissions", if shared_socket { b"0770" } else { b"0700" });
    push(&mut text, "hba_file", layout.hba_file().as_os_str().as_bytes());
    push(&mut text, "log_destination", b"stderr");
    push(&mut text, "logging_collector", b"off");
    push(&mut text, "cluster_name", b"forebay");
    for (name, value) in extra {
        push(&mut text, name, value.as_bytes());
    }
    text
}

/// Content of `pg_hba.conf`: trusts clients of the socket, whose directory is private, and rejects TCP clients.
/// The first line that matches counts, so `extra` comes first.
pub(crate) fn hba_text(extra: &[String]) -> Vec<u8> {
    let mut text = String::from("# Written by forebay at each start; changes here are lost.\n");
    for line in extra {
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("local all all trust\nlocal replication all trust\nhost all all all reject\n");
    text.into_bytes()
}

/// Appends `name = 'value'`, quoted for PostgreSQL's configuration parser.
fn push(text: &mut Vec<u8>, name: &str, value: &[u8]) {
    text.extend_from_slice(name.as_bytes());
    text.extend_from_slice(b" = '");
    for &byte in value {
        match byte {
            b'\'' => text.extend_from_slice(b"''"),
            b'\\' => text.extend_from_slice(b"\\\\"),
            b'\n' => text.extend_from_slice(b"\\n"),
            _ => text.push(byte),
        }
    }
    text.extend_from_slice(b"'\n");
}

/// A path as one item of a comma-separated list.
fn list_item(path: &Path) -> Vec<u8> {
    let mut item = vec![b'"'];
    for &byte in path.as_os_str().as_bytes() {
        if byte == b'"' {
            item.push(b'"');
        }
        item.push(byte);
    }
    item.push(b'"');
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_spaces_and_backslashes_in_paths_are_quoted() {
        let layout = Layout::unmade("/a 'b' \"c\"\\d");
        let text = String::from_utf8(settings_text(&layout, false, false, &[])).unwrap();
        assert!(text.contains(r#"unix_socket_directories = '"/a ''b'' ""c""\\d/run"'"#), "{text}");
        assert!(text.contains(r#"hba_file = '/a ''b'' "c"\\d/pg_hba.conf'"#), "{text}");
    }

    #[test]
    fn extra_settings_come_last_and_extra_access_rules_first() {
        let layout = Layout::unmade("/a");
        let text = String::from_utf8(settings_text(&layout, false, false, &[("port".into(), "1".into())])).unwrap();
        assert!(text.ends_with("port = '1'\n"));
        let hba = String::from_utf8(hba_text(&["local all somebody scram-sha-256".into()])).unwrap();
        assert!(hba.find("somebody") < hba.find("trust"));
    }
}
