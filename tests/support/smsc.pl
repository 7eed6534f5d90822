#!/usr/bin/perl
# An SMSC for tests, by Net::SMPP: one process, one select loop. Writes its port to standard output when it listens.
#
#   smsc.pl RECORD [key=value ...]
#
# Each submit_sm becomes a line of JSON in RECORD. Lines "key=value" on standard input change how it behaves; it
# answers each with "ok", and "count" with how many submits it has had. With the last "ok" of a change the change holds.

use strict;
use warnings;
use IO::Select;
use IO::Handle;
use Time::HiRes qw(time);

package Line;    # A connection: Net::SMPP with buffers, since one system call for each PDU would be its whole time.
use Net::SMPP;
use base 'Net::SMPP';

sub syswrite { my ($me, $octets) = @_; ${*$me}{out} .= $octets; return length $octets }

sub read_hard {
    my ($me, $length, $into) = @_;
    return undef if length(${*$me}{in}) - ${*$me}{at} < $length;
    $$into .= substr(${*$me}{in}, ${*$me}{at}, $length);
    ${*$me}{at} += $length;
    return 1;
}

sub next_pdu {    # The next that is whole; undef: none is.
    my $me = shift;
    my $left = length(${*$me}{in}) - ${*$me}{at};
    if ($left < 4 || $left < unpack('N', substr(${*$me}{in}, ${*$me}{at}, 4))) {
        substr(${*$me}{in}, 0, ${*$me}{at}, '');
        ${*$me}{at} = 0;
        return undef;
    }
    return $me->read_pdu;
}

sub flush_out {    # Whether it is still there.
    my $me = shift;
    while (length ${*$me}{out}) {
        my $n = CORE::syswrite($me, ${*$me}{out});
        return $!{EAGAIN} if !defined $n;
        substr(${*$me}{out}, 0, $n, '');
    }
    return 1;
}

package main;
use Net::SMPP;
use Errno;

my %how = (
    password     => '',           # what a bind must have; empty: anything
    status       => 0,            # of submit_sm_resp
    times        => -1,           # so many submits get `status`, then it is 0 again; -1: all
    late         => 0,            # seconds before an answer
    shuffle      => 0,            # so many answers are kept back and then written in the reverse order
    twice        => 0,            # answers are written twice
    silent_every => 0,            # every so manieth submit has no answer
    silent       => 0,            # nothing at all is answered
    drop_after   => 0,            # after so many submits the connection is dropped, before they are answered
    receipt      => 'none',       # none, tlv, text, payload
    receipt_late => 0,            # seconds before a receipt
    state        => 2,            # message_state of receipts
    error        => 0,            # error code of receipts
    unknown_ids  => 0,            # receipts name what was never submitted
    receipts     => 1,            # how many times each is sent
    ids          => 'decimal',    # message_id of responses: decimal, hex; receipts name it in decimal-receipts' way
    receipt_ids  => 'same',       # same, decimal, hex
    record       => 1,
    port         => 0,            # to listen on, at the start; 0: any that is free
);
my $path = shift @ARGV;
set($_) for @ARGV;
open(my $record, '>>', $path) or die "$path: $!";

my $listener = Line->new_listen('127.0.0.1', port => $how{port}, async => 1) or die "listen: $!";
my $select = IO::Select->new($listener, \*STDIN);
STDOUT->autoflush(1);
print $listener->sockport, "\n";

my %state_word = (1 => 'ENROUTE', 2 => 'DELIVRD', 3 => 'EXPIRED', 4 => 'DELETED', 5 => 'UNDELIV', 6 => 'ACCEPTD',
    7 => 'UNKNOWN', 8 => 'REJECTD');
my ($submits, $issued) = (0, 1000);
my (%lines, @later, @kept);
my $typed = '';
$SIG{PIPE} = 'IGNORE';
local $SIG{__WARN__} = sub { };    # Net::SMPP warns of what a client does.

while (1) {
    my $wait = @later ? $later[0][0] - time : 3600;
    my $writers = IO::Select->new(grep { length ${*$_}{out} } values %lines);
    my ($readable, $writable) = IO::Select->select($select, $writers, undef, $wait < 0 ? 0 : $wait);
    for my $handle (@{$readable || []}) {
        if ($handle == $listener) {
            my $line = $listener->accept or next;
            $line->blocking(0);
            ${*$line}{$_} = '' for qw(in out kind);
            ${*$line}{at} = 0;
            ${*$line}{async} = 1;
            $lines{fileno $line} = $line;
            $select->add($line);
        } elsif ($handle == \*STDIN) {
            exit 0 unless sysread(STDIN, $typed, 4096, length $typed);
            while ($typed =~ s/^([^\n]*)\n//) { set($1) }
        } else {
            hear($handle);
        }
    }
    while (@later && $later[0][0] <= time) { (shift @later)->[1]->() }
    # Who has an answer finds the submit in the record.
    $record->flush;
    for my $line (values %lines) { $line->flush_out or hang_up($line) }
}

sub set {
    my ($text) = @_;
    if ($text eq 'count') { print "$submits\n"; return }
    if ($text eq 'unbind') { $_->unbind for grep { ${*$_}{kind} } values %lines }
    elsif ($text eq 'message') { message($_) for values %lines }
    elsif ($text eq 'hang up') { hang_up($_) for values %lines }
    elsif ($text =~ /^(\w+)=(.*)$/ && exists $how{$1}) { $how{$1} = $2 }
    else { die "not known: $text\n" }
    if ($record) {
        $record->flush;
        for my $line (values %lines) { $line->flush_out }
        print "ok\n";
    }
}

sub at {    # Does something after so many seconds.
    my ($seconds, $what) = @_;
    return $what->() unless $seconds;
    my $when = time + $seconds;
    # Nearly always the last.
    my $place = @later;
    $place-- while $place && $later[$place - 1][0] > $when;
    splice @later, $place, 0, [$when, $what];
}

sub hang_up {
    my ($line) = @_;
    return unless defined fileno $line;
    delete $lines{fileno $line};
    $select->remove($line);
    close $line;
}

sub hear {
    my ($line) = @_;
    my $n = sysread($line, ${*$line}{in}, 65536, length ${*$line}{in});
    return if !defined $n && $!{EAGAIN};
    return hang_up($line) unless $n;
    while (defined fileno $line and my $pdu = $line->next_pdu) { take($line, $pdu) }
}

sub take {
    my ($line, $pdu) = @_;
    my $cmd = $pdu->{cmd};
    return if $how{silent};
    if ($cmd == Net::SMPP::CMD_submit_sm) { submit($line, $pdu) }
    elsif ($cmd == Net::SMPP::CMD_bind_transceiver) { bind_it($line, $pdu, 'bind_transceiver_resp', 'transceiver') }
    elsif ($cmd == Net::SMPP::CMD_bind_transmitter) { bind_it($line, $pdu, 'bind_transmitter_resp', 'transmitter') }
    elsif ($cmd == Net::SMPP::CMD_bind_receiver) { bind_it($line, $pdu, 'bind_receiver_resp', 'receiver') }
    elsif ($cmd == Net::SMPP::CMD_enquire_link) { $line->enquire_link_resp(seq => $pdu->{seq}) }
    elsif ($cmd == Net::SMPP::CMD_unbind) { $line->unbind_resp(seq => $pdu->{seq}) }
}

sub bind_it {
    my ($line, $pdu, $answer, $kind) = @_;
    my $refused = length $how{password} && $pdu->{password} ne $how{password};
    ${*$line}{kind} = $kind unless $refused;
    $line->$answer(seq => $pdu->{seq}, status => $refused ? 0x0E : 0, system_id => 'smsc');
}

sub submit {
    my ($line, $pdu) = @_;
    $submits++;
    record($pdu) if $how{record};
    if ($how{drop_after} && --$how{drop_after} == 0) { return hang_up($line) }
    return if $how{silent_every} && $submits % $how{silent_every} == 0;
    my $status = $how{times} ? 0 + $how{status} : 0;
    $how{times}-- if $status && $how{times} > 0;
    my $number = ++$issued;
    my $named = $how{ids} eq 'hex' ? sprintf('%x', $number) : $number;
    my $answer = sub {
        return unless defined fileno $line;
        for (1 .. ($how{twice} ? 2 : 1)) {
            $line->submit_sm_resp(seq => $pdu->{seq}, status => $status, message_id => $status ? '' : $named);
        }
        return if $status || $how{receipt} eq 'none' || !($pdu->{registered_delivery} & 1);
        at($how{receipt_late}, sub { receipt($number, $named, $pdu) });
    };
    if ($how{shuffle}) {
        push @kept, $answer;
        return if @kept < $how{shuffle};
        my @now = reverse splice @kept;
        $_->() for @now;
    } else {
        at($how{late}, $answer);
    }
}

sub receipt {
    my ($number, $named, $pdu) = @_;
    my ($line) = grep { ${*$_}{kind} =~ /^(transceiver|receiver)$/ } values %lines;
    return unless $line;
    $named = $number if $how{receipt_ids} eq 'decimal';
    $named = sprintf('%X', $number) if $how{receipt_ids} eq 'hex';
    $named = "none$named" if $how{unknown_ids};
    my $text = sprintf('id:%s sub:001 dlvrd:001 submit date:2601010000 done date:2601010000 stat:%s err:%03d text:',
        $named, $state_word{$how{state}}, $how{error});
    my @what = $how{receipt} eq 'text' ? (short_message => $text)
        : $how{receipt} eq 'payload' ? (short_message => '', message_payload => $text)
        : (short_message => '', receipted_message_id => "$named\0", message_state => pack('C', $how{state}),
            network_error_code => pack('Cn', 3, $how{error}));
    for (1 .. $how{receipts}) {
        $line->deliver_sm(source_addr => $pdu->{destination_addr}, destination_addr => $pdu->{source_addr},
            esm_class => 0x04, @what);
    }
}

sub message {    # As from a subscriber, who has written what looks like a receipt.
    my ($line) = @_;
    $line->deliver_sm(source_addr => '99900000009', destination_addr => 'EIR',
        short_message => 'id:1001 stat:DELIVRD err:000');
}

sub record {
    my ($pdu) = @_;
    my %tlv = map { $_ => unpack('H*', $pdu->{$_}) }
        grep { defined $pdu->{$_} } qw(sar_msg_ref_num sar_total_segments sar_segment_seqnum message_payload);
    my $tlvs = join ',', map { "\"$_\":\"$tlv{$_}\"" } sort keys %tlv;
    my $text = unpack 'H*', $pdu->{short_message};
    $pdu->{$_} =~ s/[^0-9A-Za-z]//g for qw(destination_addr source_addr validity_period);
    print $record qq({"to":"$pdu->{destination_addr}","from":"$pdu->{source_addr}","coding":$pdu->{data_coding},)
        . qq("esm_class":$pdu->{esm_class},"registered":$pdu->{registered_delivery},"sequence":$pdu->{seq},)
        . qq("validity":"$pdu->{validity_period}","octets":"$text","tlvs":{$tlvs}}\n);
}
