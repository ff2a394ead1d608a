//! Which master has which slots: what a node of a Cluster tells.

use std::{sync::Arc, time::Duration};

use super::{node::Node, reply::Reply};

/// How long one server may take to tell.
pub(super) const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// Slots `first` to `last` belong to this master.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Asks a node of a Cluster.
pub(super) async fn ask(node: &Arc<Node>) -> Result<Vec<Range>, fred::error::Error> {
    let unreadable = || fred::error::Error::new(fred::error::ErrorKind::Protocol, "CLUSTER SLOTS cannot be read");
    match node.ask("CLUSTER", vec!["SLOTS".into()], ASK_TIMEOUT).await {
        Ok(reply) => parse_slots(reply, node.host()).ok_or_else(unreadable),
        Err(fault) => Err(fault.into_fred()),
    }
}

/// `asked` is the host of the node that tells: it may leave out its own.
fn parse_slots(reply: Reply, asked: &str) -> Option<Vec<Range>> {
    let range = |reply: Reply| {
        let parts = reply.into_array()?;
        let slot = |i: usize| parts.get(i)?.as_u64()?.try_into().ok();
        let (first, last) = (slot(0)?, slot(1)?);
        let master = parts.get(2)?.clone().into_array()?;
        let host = master.first()?.as_str().filter(|host| !host.is_empty() && *host != "?").unwrap_or(asked).to_owned();
        Some(Range { first, last, host, port: master.get(1)?.as_u64()?.try_into().ok()? })
    };
    reply.into_array()?.into_iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn text(text: &'static str) -> Reply {
        Reply::Bytes(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn the_table_of_slots_is_read_and_a_node_may_leave_out_its_own_host() {
        let node = |host, port| Reply::Array(vec![host, Reply::Int(port), text("id"), Reply::Array(Vec::new())]);
        let range = |first, last, node| Reply::Array(vec![Reply::Int(first), Reply::Int(last), node]);
        let table = Reply::Array(vec![
            range(0, 5460, node(text("10.0.0.1"), 7000)),
            range(5461, 10_922, node(text(""), 7001)),
            range(10_923, 16_383, node(Reply::Nil, 7002)),
        ]);
        let table = parse_slots(table, "asked").unwrap();
        let places: Vec<_> = table.iter().map(|range| format!("{}:{}", range.host, range.port)).collect();
        assert_eq!(places, ["10.0.0.1:7000", "asked:7001", "asked:7002"]);
        assert_eq!((table[1].first, table[1].last), (5461, 10_922));
    }

    #[test]
    fn a_table_of_nonsense_is_no_table() {
        assert_eq!(parse_slots(Reply::Nil, "h"), None);
        assert_eq!(parse_slots(Reply::Array(vec![Reply::Int(1)]), "h"), None);
        let negative = Reply::Array(vec![Reply::Int(-1), Reply::Int(5), Reply::Array(Vec::new())]);
        assert_eq!(parse_slots(Reply::Array(vec![negative]), "h"), None);
    }
}
