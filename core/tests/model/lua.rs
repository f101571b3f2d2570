//! As much of Lua as the scripts of the Redis store are written in. What it does not know, it panics at.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// A value of a script. Redis gives a script `false` where it has nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    False,
    Number(f64),
    Text(String),
    List(Vec<Value>),
}

impl Value {
    fn is_true(&self) -> bool {
        *self != Self::False
    }

    /// As arithmetic takes it: text that is a number is one.
    #[track_caller]
    fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => text.parse().expect("a number"),
            other => panic!("arithmetic on {other:?}"),
        }
    }

    /// As an argument of a command.
    #[track_caller]
    fn argument(&self) -> String {
        match self {
            Self::Number(number) => format!("{number}"),
            Self::Text(text) => text.clone(),
            other => panic!("an argument cannot be {other:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token<'s> {
    Name(&'s str),
    Number(f64),
    Text(&'s str),
    Sign(&'s str),
}

thread_local! {
    /// The scripts that have been read: there are few, and they are run often.
    static READ: RefCell<HashMap<String, Rc<[Token<'static>]>>> = RefCell::default();
}

fn tokens_of(script: &str) -> Rc<[Token<'static>]> {
    READ.with_borrow_mut(|read| {
        if let Some(known) = read.get(script) {
            return Rc::clone(known);
        }
        let tokens: Rc<[Token<'static>]> = tokens(script.to_owned().leak()).into();
        read.insert(script.to_owned(), Rc::clone(&tokens));
        tokens
    })
}

fn tokens(script: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let mut rest = script.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
        let (token, used) = match first {
            '\'' => {
                let end = rest[1..].find('\'').expect("the end of a string");
                (Token::Text(&rest[1..=end]), end + 2)
            }
            '0'..='9' => {
                let end = length(|c| c.is_ascii_digit());
                (Token::Number(rest[..end].parse().unwrap()), end)
            }
            'a'..='z' | 'A'..='Z' => {
                let end = length(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
                (Token::Name(&rest[..end]), end)
            }
            _ => {
                let two = ["==", "~=", ">=", "<="];
                let end = if two.iter().any(|sign| rest.starts_with(sign)) {
                    2
                } else {
                    1
                };
                (Token::Sign(&rest[..end]), end)
            }
        };
        found.push(token);
        rest = rest[used..].trim_start();
    }
    found
}

/// Runs a script; `call` is `redis.call`. What it returns, or `false`.
pub(crate) fn run(
    script: &str,
    keys: &[String],
    arguments: &[String],
    call: &mut dyn FnMut(&[String]) -> Value,
) -> Value {
    let list = |texts: &[String]| Value::List(texts.iter().cloned().map(Value::Text).collect());
    let mut run = Run {
        tokens: tokens_of(script),
        at: 0,
        names: HashMap::from([("KEYS", list(keys)), ("ARGV", list(arguments))]),
        call,
    };
    let returned = run.block(true);
    returned.unwrap_or(Value::False)
}

struct Run<'c> {
    tokens: Rc<[Token<'static>]>,
    at: usize,
    names: HashMap<&'static str, Value>,
    call: &'c mut dyn FnMut(&[String]) -> Value,
}

/// Operators, those that bind the least first.
const LEVELS: [&[&str]; 4] = [
    &["and"],
    &["==", "~=", ">=", "<=", "<", ">"],
    &["+", "-"],
    &["*", "/"],
];

impl Run<'_> {
    fn peek(&self) -> Option<Token<'static>> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, token: Token<'static>) -> bool {
        let is_there = self.peek() == Some(token);
        self.at += usize::from(is_there);
        is_there
    }

    #[track_caller]
    fn expect(&mut self, token: Token<'static>) {
        assert!(self.take(token), "{token:?} at {:?}", self.peek());
    }

    fn name(&mut self) -> &'static str {
        let Some(Token::Name(name)) = self.peek() else {
            panic!("a name at {:?}", self.peek())
        };
        self.at += 1;
        name
    }

    /// Runs up to the end of the block, or reads over it. What it returns, if it does.
    fn block(&mut self, is_live: bool) -> Option<Value> {
        while self.at < self.tokens.len() && !self.take(Token::Name("end")) {
            if self.take(Token::Name("local")) {
                let name = self.name();
                self.expect(Token::Sign("="));
                let value = self.expression(0, is_live);
                self.names.insert(name, value);
            } else if self.take(Token::Name("if")) {
                let is_met = self.expression(0, is_live).is_true() && is_live;
                self.expect(Token::Name("then"));
                let returned = self.block(is_met);
                if returned.is_some() {
                    return returned;
                }
            } else if self.take(Token::Name("return")) {
                let value = self.expression(0, is_live);
                if is_live {
                    return Some(value);
                }
            } else {
                self.expression(0, is_live);
            }
        }
        None
    }

    fn expression(&mut self, level: usize, is_live: bool) -> Value {
        let Some(signs) = LEVELS.get(level) else {
            return self.operand(is_live);
        };
        let mut left = self.expression(level + 1, is_live);
        while let Some(Token::Sign(sign) | Token::Name(sign)) = self.peek()
            && signs.contains(&sign)
        {
            self.at += 1;
            let goes_on = is_live && (sign != "and" || left.is_true());
            let right = self.expression(level + 1, goes_on);
            if goes_on {
                left = operate(&left, sign, right);
            }
        }
        left
    }

    fn operand(&mut self, is_live: bool) -> Value {
        let token = self.peek().expect("a value");
        self.at += 1;
        let name = match token {
            Token::Number(number) => return Value::Number(number),
            Token::Text(text) => return Value::Text(text.to_owned()),
            Token::Name("false") => return Value::False,
            Token::Name(name) => name,
            Token::Sign(sign) => panic!("a value at {sign}"),
        };
        if self.take(Token::Sign("(")) {
            let mut arguments = Vec::new();
            while !self.take(Token::Sign(")")) {
                arguments.push(self.expression(0, is_live));
                self.take(Token::Sign(","));
            }
            return if is_live {
                self.function(name, &arguments)
            } else {
                Value::False
            };
        }
        let value = if is_live {
            self.names.get(name).cloned().expect(name)
        } else {
            Value::False
        };
        if !self.take(Token::Sign("[")) {
            return value;
        }
        let index = self.expression(0, true).number();
        self.expect(Token::Sign("]"));
        match value {
            Value::List(list) => list[index as usize - 1].clone(),
            _ => Value::False,
        }
    }

    fn function(&mut self, name: &str, arguments: &[Value]) -> Value {
        match name {
            "redis.call" => {
                let arguments: Vec<String> = arguments.iter().map(Value::argument).collect();
                (self.call)(&arguments)
            }
            "math.floor" => Value::Number(arguments[0].number().floor()),
            "tonumber" => Value::Number(arguments[0].number()),
            _ => panic!("no function {name}"),
        }
    }
}

#[track_caller]
fn operate(left: &Value, sign: &str, right: Value) -> Value {
    let truth = |is: bool| if is { Value::Number(1.0) } else { Value::False };
    match (sign, left, &right) {
        ("and", ..) => right,
        ("==", ..) => truth(*left == right),
        ("~=", ..) => truth(*left != right),
        ("+", ..) => Value::Number(left.number() + right.number()),
        ("-", ..) => Value::Number(left.number() - right.number()),
        ("*", ..) => Value::Number(left.number() * right.number()),
        ("/", ..) => Value::Number(left.number() / right.number()),
        (">=", Value::Number(left), Value::Number(right)) => truth(left >= right),
        ("<=", Value::Number(left), Value::Number(right)) => truth(left <= right),
        ("<", Value::Number(left), Value::Number(right)) => truth(left < right),
        (">", Value::Number(left), Value::Number(right)) => truth(left > right),
        // As Lua, which compares no text with a number.
        _ => panic!("{left:?} {sign} {right:?}"),
    }
}
