//! Signs and binary operators.

use super::{Parsed, Parser};
use crate::ast::{Binary, BinaryOp, Fill, Matching, NodeId, NodeKind, Sign};
use crate::function::ValueType;
use crate::token::{Kind, Token};

impl Parser<'_> {
    /// Parses a sign and its operand.
    pub(super) fn unary(&mut self, sign: Token) -> Parsed<NodeId> {
        self.bump();
        // Of the binary operators, only the power binds tighter than a sign.
        let inner = self.expression(BinaryOp::Pow.precedence())?;
        let node = self.expr.node_mut(inner);
        let span = sign.span.to(node.span);
        if let NodeKind::Number(number) = &mut node.kind {
            if sign.kind == Kind::Sub {
                number.value = -number.value;
            }
            node.span = span;
            return Ok(inner);
        }
        let value_type = node.value_type;
        self.add(span, value_type, NodeKind::Unary(sign_of(sign.kind), inner))
    }

    /// Parses the operator, its modifiers, and its right operand.
    pub(super) fn binary(&mut self, left: NodeId, op: BinaryOp) -> Parsed<NodeId> {
        self.bump();
        let (return_bool, matching) = self.modifiers()?;
        let least = op.precedence() + u8::from(op != BinaryOp::Pow);
        let right = self.expression(least)?;
        let span = self.span(left).to(self.span(right));
        if !self.options.fill_modifiers && matching.fill != Fill::default() {
            let message = "binop fill modifiers are experimental and not enabled";
            return Err(self.syntax(span, message.to_owned()));
        }
        let types = [left, right].map(|side| self.expr[side].value_type);
        // Upstream drops a matching that has no effect.
        let matches = types == [ValueType::Vector; 2] || matching != Matching::default();
        let binary = Binary {
            op,
            return_bool,
            matching: matches.then(|| Box::new(matching)),
            left,
            right,
        };
        let value_type = match types {
            [ValueType::Scalar, ValueType::Scalar] => ValueType::Scalar,
            _ => ValueType::Vector,
        };
        self.add(span, value_type, NodeKind::Binary(binary))
    }
}

fn sign_of(kind: Kind) -> Sign {
    match kind {
        Kind::Sub => Sign::Minus,
        _ => Sign::Plus,
    }
}

/// The binary operator for a token.
pub(super) fn binary(kind: Kind) -> Option<BinaryOp> {
    Some(match kind {
        Kind::Add => BinaryOp::Add,
        Kind::And => BinaryOp::And,
        Kind::Atan2 => BinaryOp::Atan2,
        Kind::Div => BinaryOp::Div,
        Kind::Equal => BinaryOp::Equal,
        Kind::Greater => BinaryOp::Greater,
        Kind::GreaterEqual => BinaryOp::GreaterEqual,
        Kind::Less => BinaryOp::Less,
        Kind::LessEqual => BinaryOp::LessEqual,
        Kind::Mod => BinaryOp::Mod,
        Kind::Mul => BinaryOp::Mul,
        Kind::NotEqual => BinaryOp::NotEqual,
        Kind::Or => BinaryOp::Or,
        Kind::Pow => BinaryOp::Pow,
        Kind::Sub => BinaryOp::Sub,
        Kind::TrimLower => BinaryOp::TrimLower,
        Kind::TrimUpper => BinaryOp::TrimUpper,
        Kind::Unless => BinaryOp::Unless,
        _ => return None,
    })
}
