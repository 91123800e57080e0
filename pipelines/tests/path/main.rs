//! A worker's packet path from frame to frame, in memory and by a clock that the tests turn, against stock clients.

mod bench;

mod forwarding;
