use std::sync::Arc;

use crate::{
    LineLink, Link,
    link::{Inbox, Request},
    reader::Anchor,
};

/// Where the rows of a source come from.
#[derive(Clone)]
pub enum Input {
    /// A streamer, which is told what to read.
    Frames(Link),
    /// A program, which writes what it has.
    Lines(LineLink),
}

impl From<Link> for Input {
    fn from(link: Link) -> Self {
        Self::Frames(link)
    }
}

impl From<LineLink> for Input {
    fn from(link: LineLink) -> Self {
        Self::Lines(link)
    }
}

impl Input {
    /// Makes a reader known before its first request. A streamer needs no anchor: it reads from any row.
    pub(crate) fn open(&self, inbox: &Arc<Inbox>, anchor: Option<Anchor>) {
        if let Self::Lines(link) = self {
            link.open(inbox, anchor);
        }
    }

    pub(crate) fn request(&self, request: Request, inbox: &Arc<Inbox>) {
        match self {
            Self::Frames(link) => link.request(request, inbox),
            Self::Lines(link) => link.request(request, inbox),
        }
    }

    /// Forgets the requests of a reader that is gone.
    pub(crate) fn forget(&self, inbox: &Arc<Inbox>) {
        match self {
            Self::Frames(link) => link.forget(inbox),
            Self::Lines(link) => link.forget(inbox),
        }
    }
}
