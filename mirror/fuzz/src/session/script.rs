//! What a scripted client and a scripted server do, in one order, as it is made of arbitrary bytes. It
//! says what is done and not what should come of it, and touches no socket.

use arbitrary::{Arbitrary, Result, Unstructured};

/// More steps than these add no new situations.
const MAX_STEPS: usize = 48;

/// A whole connection.
#[derive(Debug, Clone)]
pub struct Script {
    /// Requests for encryption before the first packet.
    pub greeting: Vec<Asked>,
    /// The first packet.
    pub first: First,
    /// How the greeting is cut into writes.
    pub cut: u8,
    /// The server lets the client in as soon as it hears of it.
    pub logs_in: bool,
    /// What is done then.
    pub steps: Vec<Step>,
    /// How it ends.
    pub ending: Ending,
    /// Over TCP; else over a unix socket.
    pub tcp: bool,
    /// The tap holds little, and the shadow path is not there to empty it.
    pub small_tap: bool,
}

impl<'a> Arbitrary<'a> for Script {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let shape: u8 = u.arbitrary()?;
        let mut greeting: Vec<Asked> = u.arbitrary()?;
        greeting.truncate(3);
        let first = u.arbitrary()?;
        let (cut, ending) = (u.arbitrary()?, u.arbitrary()?);
        let mut steps = Vec::new();
        while !u.is_empty() && steps.len() < MAX_STEPS {
            steps.push(u.arbitrary()?);
        }
        Ok(Self {
            greeting,
            first,
            cut,
            logs_in: shape & 1 == 0,
            steps,
            ending,
            tcp: shape & 0x0e == 0x0e,
            small_tap: shape & 0x70 == 0x70,
        })
    }
}

/// A request for encryption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Asked {
    /// `SSLRequest`.
    Tls,
    /// `GSSENCRequest`.
    Gss,
}

/// What the connection begins with.
#[derive(Debug, Clone)]
pub enum First {
    /// A startup packet of this minor version.
    Startup {
        /// The minor version.
        minor: u8,
        /// Parameters beside the user, as they come.
        parameters: Vec<u8>,
        /// It asks for replication.
        replication: bool,
    },
    /// A cancel request with a key of so many bytes.
    Cancel(u8),
    /// Any packet whatever, with a length that is its own.
    Packet(Vec<u8>),
    /// Any bytes whatever.
    Bytes(Vec<u8>),
    /// A length, and nothing of what it promises.
    Length(u32),
    /// The client leaves before it has said what it wants.
    Nothing,
}

impl<'a> Arbitrary<'a> for First {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        // Most connections are sessions.
        let kind: u8 = u.arbitrary()?;
        Ok(match kind {
            0..=199 => Self::Startup { minor: kind % 3, parameters: Vec::new(), replication: false },
            200..=209 => Self::Startup { minor: 0, parameters: few(u)?, replication: false },
            210..=219 => Self::Startup { minor: 2, parameters: Vec::new(), replication: true },
            220..=227 => Self::Cancel(u.arbitrary()?),
            228..=235 => Self::Packet(few(u)?),
            236..=243 => Self::Bytes(few(u)?),
            244..=251 => Self::Length(u.arbitrary()?),
            _ => Self::Nothing,
        })
    }
}

/// One thing that is done.
#[derive(Debug, Clone)]
pub struct Step {
    /// Who says what.
    pub said: Said,
    /// How it is cut into writes: 0, in one.
    pub cut: u8,
    /// How many turns the others get then.
    pub pause: u8,
    /// What happens after it.
    pub fate: Option<Fate>,
}

impl<'a> Arbitrary<'a> for Step {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        let said = u.arbitrary()?;
        let (cut, rhythm): (u8, u8) = (u.arbitrary()?, u.arbitrary()?);
        let fate = if rhythm >= 0xf0 { Some(u.arbitrary()?) } else { None };
        Ok(Self { said, cut: if cut < 0x80 { 0 } else { cut & 0x7f }, pause: rhythm & 0x0f, fate })
    }
}

/// Who says what.
#[derive(Debug, Clone, Arbitrary)]
pub enum Said {
    /// The client.
    Client(Request),
    /// The server.
    Server(Answer),
    /// Both, as it should be.
    Exchange(Exchange),
}

/// A client's message.
#[derive(Debug, Clone, Arbitrary)]
pub enum Request {
    /// A password, or what else belongs to a login.
    Password,
    /// A simple query.
    Query(u8),
    /// Parse.
    Parse { name: u8, sql: u8 },
    /// Bind, with as many parameters.
    Bind { portal: u8, name: u8, values: u8 },
    /// Describe.
    Describe(u8),
    /// Execute.
    Execute { portal: u8, rows: u8 },
    /// Close.
    Close { is_portal: bool, name: u8 },
    /// Sync.
    Sync,
    /// Flush.
    Flush,
    /// FunctionCall.
    FunctionCall,
    /// CopyData, so many hundred bytes.
    CopyData(u8),
    /// CopyDone.
    CopyDone,
    /// CopyFail.
    CopyFail,
    /// Terminate.
    Terminate,
    /// A message of any type with any contents.
    Any { tag: u8, contents: u8 },
    /// Bytes that need not be a message.
    Bytes([u8; 6]),
}

/// A server's message.
#[derive(Debug, Clone, Arbitrary)]
pub enum Answer {
    /// An authentication request; 0, that it is done.
    Authentication(u8),
    /// ParameterStatus.
    ParameterStatus,
    /// BackendKeyData, with a secret of so many bytes.
    BackendKey(u8),
    /// ReadyForQuery.
    Ready(u8),
    /// So many rows of so many hundred bytes.
    Rows { rows: u8, hundreds: u8 },
    /// RowDescription.
    RowDescription,
    /// ParameterDescription.
    ParameterDescription,
    /// CommandComplete.
    Complete(u8),
    /// ParseComplete, BindComplete, CloseComplete, NoData, EmptyQueryResponse, PortalSuspended.
    Short(u8),
    /// CopyInResponse, CopyOutResponse, CopyBothResponse.
    Copy(u8),
    /// CopyData, so many hundred bytes.
    CopyData(u8),
    /// CopyDone.
    CopyDone,
    /// ErrorResponse.
    Error(u8),
    /// NoticeResponse.
    Notice,
    /// NotificationResponse.
    Notification,
    /// FunctionCallResponse.
    FunctionResult,
    /// A message of any type with any contents.
    Any { tag: u8, contents: u8 },
    /// Bytes that need not be a message.
    Bytes([u8; 6]),
}

/// A request with its answer.
#[derive(Debug, Clone, Arbitrary)]
pub enum Exchange {
    /// A simple query with rows.
    Simple { sql: u8, rows: u8, status: u8 },
    /// Parse, Bind, Describe, Execute, Sync.
    Extended { sql: u8, rows: u8, status: u8 },
    /// As many of them before the first answer.
    Pipeline(u8),
    /// COPY FROM STDIN by a simple query.
    CopyIn { chunks: u8, fails: bool },
    /// COPY FROM STDIN by the extended protocol.
    CopyInExtended { chunks: u8, fails: bool },
    /// COPY TO STDOUT.
    CopyOut { chunks: u8 },
    /// A function call.
    Function,
    /// A statement that fails.
    Failure(u8),
}

/// What happens beside words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Fate {
    /// The client says that it will send no more.
    ClientSendsNoMore,
    /// The client is gone.
    ClientVanishes,
    /// The server says that it will send no more.
    ServerSendsNoMore,
    /// The server is gone.
    ServerVanishes,
    /// The client stops reading, or begins again.
    ClientReads(bool),
    /// The server stops reading, or begins again.
    ServerReads(bool),
    /// The gate is closed for a moment.
    GateCloses,
    /// The gate is opened.
    GateOpens,
    /// The mirror drains.
    Drains,
    /// Capture ends.
    CaptureEnds,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub enum Ending {
    /// The client sends no more, reads all there is, and closes.
    Client,
    /// The same, after it has said goodbye.
    Terminate,
    /// The server has said all, and closes.
    Server,
    /// Both are gone at once.
    Vanish,
}

/// A few bytes, their number before them.
fn few(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let count: u8 = u.arbitrary()?;
    let count = usize::from(count).min(u.len());
    Ok(u.bytes(count)?.to_vec())
}
