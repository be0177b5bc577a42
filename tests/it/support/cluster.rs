//! A cluster of three private nodes.

use super::broker::Broker;
use super::vhost::Vhost;

/// The nodes, in the order in which they were started.
pub struct Cluster {
    pub nodes: Vec<Broker>,
}

impl Cluster {
    /// Starts three nodes. Takes about fifteen seconds.
    pub async fn of_three() -> Self {
        let seed = Broker::own_with("").await;
        // Started one after the other: nodes that join at the same moment disturb each other.
        let second = Broker::joining(&seed).await;
        let third = Broker::joining(&seed).await;
        let nodes = vec![seed, second, third];
        Self { nodes }
    }

    /// The URLs of one vhost on all nodes.
    pub fn urls(&self, vhost: &Vhost) -> Vec<String> {
        let port = |broker: &Broker| format!(":{}/", broker.port("AMQP_PORT"));
        let seeds = port(&self.nodes[0]);
        let at = |node| vhost.amqp_url.replace(&seeds, &port(node));
        self.nodes.iter().map(at).collect()
    }

    /// The position in [`Cluster::nodes`] of the leader of a quorum queue, according to node
    /// `asked`.
    pub async fn leader_of(&self, vhost: &Vhost, queue: &str, asked: usize) -> Option<usize> {
        let listed = self.nodes[asked]
            .ctl(&["-q", "list_queues", "-p", &vhost.name, "name", "leader"])
            .await;
        let line = listed
            .lines()
            .find(|line| line.starts_with(&format!("{queue}\t")))?;
        let leader = line.split('\t').nth(1)?;
        self.nodes.iter().position(|node| node.node() == leader)
    }
}
